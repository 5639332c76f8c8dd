module code.google.com/p/gosqlite

go 1.24.2
