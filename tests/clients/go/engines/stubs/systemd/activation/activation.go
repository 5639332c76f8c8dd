// Package activation hands over no sockets: tests start engines themselves.
package activation

import "net"

func Listeners(bool) ([]net.Listener, error) { return nil, nil }
