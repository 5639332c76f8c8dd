module engine

go 1.24.2

require (
	github.com/Sirupsen/logrus v0.8.2
	github.com/docker/distribution v2.0.0+incompatible
	github.com/docker/docker v1.6.2
	github.com/docker/docker/autogen/dockerversion v0.0.0
	github.com/docker/libcontainer v1.4.0
	github.com/docker/libtrust v0.0.0-20160708172513-aabc10ec26b7
	github.com/gorilla/mux v1.4.0
	github.com/tchap/go-patricia v1.0.1
	jobs v0.0.0
	oldtar v0.0.0
)

replace jobs => ../jobs

replace github.com/docker/docker/autogen/dockerversion => ../dockerversion

replace oldtar => ../oldtar
