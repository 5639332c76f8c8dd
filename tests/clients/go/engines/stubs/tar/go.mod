module github.com/dotcloud/tar

go 1.24.2
