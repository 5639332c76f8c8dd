// Command engine is engine 1.3.3's moving of images.
package main

import (
	"path/filepath"

	"jobs"

	"github.com/docker/docker/dockerversion"
	"github.com/docker/docker/engine"
	"github.com/docker/docker/graph"
	"github.com/docker/docker/registry"
)

func main() {
	dockerversion.VERSION = "1.3.3"
	jobs.Main(func(eng *engine.Engine, root string, images *graph.Graph) (*graph.TagStore, error) {
		insecure := []string{"127.0.0.0/8"} // what its daemon adds by itself
		if err := registry.NewService(insecure).Install(eng); err != nil {
			return nil, err
		}
		return graph.NewTagStore(filepath.Join(root, "names"), images, nil, insecure)
	})
}
