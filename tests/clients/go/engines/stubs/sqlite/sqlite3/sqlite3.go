// Package sqlite3 stands in for the database that engines keep the names of containers in: tests run no containers.
// It takes every statement and keeps nothing.
package sqlite3

import (
	"database/sql"
	"database/sql/driver"
	"io"
)

type nothing struct{}

func (nothing) Open(string) (driver.Conn, error)           { return nothing{}, nil }
func (nothing) Prepare(string) (driver.Stmt, error)        { return nothing{}, nil }
func (nothing) Begin() (driver.Tx, error)                  { return nothing{}, nil }
func (nothing) Commit() error                              { return nil }
func (nothing) Rollback() error                            { return nil }
func (nothing) Close() error                               { return nil }
func (nothing) NumInput() int                              { return -1 }
func (nothing) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(0), nil }
func (nothing) Query([]driver.Value) (driver.Rows, error)  { return nothing{}, nil }
func (nothing) Columns() []string                          { return nil }
func (nothing) Next([]driver.Value) error                  { return io.EOF }

func init() { sql.Register("sqlite3", nothing{}) }
