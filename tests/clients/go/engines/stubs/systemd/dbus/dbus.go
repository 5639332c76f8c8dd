// Package dbus is a machine without systemd.
package dbus

import "errors"

type Property struct {
	Name  string
	Value any
}

type Conn struct{}

var errAbsent = errors.New("no systemd here")

func New() (*Conn, error) { return nil, errAbsent }

func (*Conn) StartTransientUnit(string, string, ...Property) (string, error) { return "", errAbsent }

func (*Conn) GetUnitTypeProperties(string, string) (map[string]any, error) { return nil, errAbsent }
