module github.com/coreos/go-systemd

go 1.24.2
