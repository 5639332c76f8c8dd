// Package dockerversion says what an engine's build wrote into it, and the module's sources lack.
package dockerversion

// Set by the linker.
var (
	VERSION   string
	GITCOMMIT = "library"
	BUILDTIME string
	IAMSTATIC = "true"
	INITSHA1  string
	INITPATH  string
)
