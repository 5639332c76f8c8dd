// Command engine is engine 1.6.2's moving of images.
package main

import (
	"path/filepath"

	"jobs"

	"github.com/docker/docker/autogen/dockerversion"
	"github.com/docker/docker/engine"
	"github.com/docker/docker/graph"
	"github.com/docker/docker/registry"
	"github.com/docker/libtrust"
)

func main() {
	dockerversion.VERSION = "1.6.2"
	jobs.Main(func(eng *engine.Engine, root string, images *graph.Graph) (*graph.TagStore, error) {
		if err := registry.NewService(nil).Install(eng); err != nil {
			return nil, err
		}
		key, err := libtrust.LoadOrCreateTrustKey(filepath.Join(root, "key.json"))
		if err != nil {
			return nil, err
		}
		return graph.NewTagStore(filepath.Join(root, "names"), images, key)
	})
}
