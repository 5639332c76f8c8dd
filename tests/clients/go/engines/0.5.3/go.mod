module engine

go 1.24.2

tool github.com/dotcloud/docker/docker

replace (
	github.com/dotcloud/docker => github.com/docker/docker v0.5.3
	oldtar => ../oldtar
)

require (
	github.com/dotcloud/docker v0.0.0 // indirect
	oldtar v0.0.0 // indirect
	github.com/gorilla/context v1.1.2 // indirect
	github.com/gorilla/mux v1.4.0 // indirect
	github.com/kr/pty v1.1.1 // indirect
)
