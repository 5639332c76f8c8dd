//go:build autogen

package dockerversion

// What an engine's build writes, by way of the linker.
var (
	Version   string
	GitCommit = "library"
	BuildTime string
	IAmStatic = "true"
)
