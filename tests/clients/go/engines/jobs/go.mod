module jobs

go 1.24.2

require github.com/docker/docker v1.3.3
