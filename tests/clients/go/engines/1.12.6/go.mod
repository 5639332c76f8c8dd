module engine

go 1.24.2

require (
	github.com/Sirupsen/logrus v0.11.0
	github.com/docker/distribution v2.5.1+incompatible
	github.com/docker/docker v1.12.6
	github.com/docker/engine-api v0.4.0
	github.com/docker/go-connections v0.2.1
	github.com/docker/go-units v0.3.1
	github.com/docker/libtrust v0.0.0-20160708172513-aabc10ec26b7
	github.com/gorilla/mux v1.4.0
	github.com/opencontainers/runc v0.1.1
	github.com/vbatts/tar-split v0.11.2
	golang.org/x/net v0.33.0
	oldtar v0.0.0
)

replace oldtar => ../oldtar
