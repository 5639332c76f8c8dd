module engine

go 1.24.2

require (
	github.com/Sirupsen/logrus v0.8.2
	github.com/docker/distribution v2.1.0+incompatible
	github.com/docker/docker v1.9.1
	github.com/docker/docker/autogen/dockerversion v0.0.0
	github.com/docker/libtrust v0.0.0-20160708172513-aabc10ec26b7
	github.com/gorilla/mux v1.4.0
	github.com/opencontainers/runc v0.1.1
	github.com/tchap/go-patricia v2.2.6+incompatible
	github.com/vbatts/tar-split v0.11.2
	golang.org/x/net v0.33.0
	oldtar v0.0.0
)

replace github.com/docker/docker/autogen/dockerversion => ../dockerversion

replace oldtar => ../oldtar
