package registry

import (
	"fmt"
	"strings"
)

// A right to the whole registry, as a token service is asked for it. The release of distribution that can be had lacks it.
type registryScope struct {
	Name    string
	Actions []string
}

func (s registryScope) String() string {
	return fmt.Sprintf("registry:%s:%s", s.Name, strings.Join(s.Actions, ","))
}
