module github.com/docker/docker/autogen/dockerversion

go 1.24.2
