module oldtar

go 1.24.2
