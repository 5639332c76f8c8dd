module engine

go 1.24.2

tool github.com/dotcloud/docker/docker

replace (
	code.google.com/p/go.net => golang.org/x/net v0.35.0
	code.google.com/p/gosqlite => ../stubs/sqlite
	github.com/dotcloud/docker => github.com/docker/docker v0.6.7
	oldtar => ../oldtar
)

require (
	code.google.com/p/go.net v0.0.0 // indirect
	code.google.com/p/gosqlite v0.0.0 // indirect
	github.com/dotcloud/docker v0.0.0 // indirect
	oldtar v0.0.0 // indirect
	github.com/gorilla/context v1.1.2 // indirect
	github.com/gorilla/mux v1.4.0 // indirect
	github.com/kr/pty v1.1.1 // indirect
)
