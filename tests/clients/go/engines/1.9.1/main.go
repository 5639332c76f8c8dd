// Command engine is engine 1.9.1's moving of images, without containers: -u NAME:PASSWORD ROOT COMMAND ARGUMENT...
//
// Storage, archives and the registry's protocols are the engine's own code, called as its daemon calls it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/cliconfig"
	"github.com/docker/docker/daemon/events"
	"github.com/docker/docker/daemon/graphdriver"
	_ "github.com/docker/docker/daemon/graphdriver/vfs"
	"github.com/docker/docker/graph"
	"github.com/docker/docker/pkg/reexec"
	"github.com/docker/docker/registry"
	"github.com/docker/docker/runconfig"
	"github.com/docker/libtrust"
)

func main() {
	if reexec.Init() { // it unpacks layers in a process of its own
		return
	}
	account := flag.String("u", "", "NAME:PASSWORD")
	flag.Parse()
	if err := run(*account, flag.Arg(0), flag.Arg(1), flag.Args()[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(account, root, command string, arguments []string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	driver, err := graphdriver.GetDriver("vfs", root, nil, nil, nil)
	if err != nil {
		return err
	}
	images, err := graph.NewGraph(filepath.Join(root, "graph"), driver, nil, nil)
	if err != nil {
		return err
	}
	key, err := libtrust.LoadOrCreateTrustKey(filepath.Join(root, "key.json"))
	if err != nil {
		return err
	}
	service := registry.NewService(nil)
	config := &graph.TagStoreConfig{Graph: images, Key: key, Registry: service, Events: events.New()}
	names, err := graph.NewTagStore(filepath.Join(root, "names"), config)
	if err != nil {
		return err
	}
	who, password, _ := strings.Cut(account, ":")
	as := &cliconfig.AuthConfig{Username: who, Password: password, Email: who + "@example.com"}
	name, tag := parts(arguments[0])
	switch command {
	case "load":
		return load(images, names, arguments)
	case "tag":
		newName, newTag := parts(arguments[1])
		return names.Tag(newName, newTag, arguments[0], true)
	case "push":
		return names.Push(name, &graph.ImagePushConfig{AuthConfig: as, Tag: tag, OutStream: os.Stdout})
	case "pull":
		return names.Pull(name, tag, &graph.ImagePullConfig{AuthConfig: as, OutStream: os.Stdout})
	case "save":
		return names.ImageExport(arguments, os.Stdout)
	case "search":
		found, err := service.Search(arguments[0], as, nil)
		if err == nil {
			for _, each := range found.Results {
				fmt.Println(each.Name)
			}
		}
		return err
	case "login":
		as.ServerAddress = arguments[0]
		said, err := service.Auth(as)
		fmt.Println(said)
		return err
	}
	return fmt.Errorf("no command %q", command)
}

// load makes an image of layers, base first.
func load(images *graph.Graph, names *graph.TagStore, arguments []string) error {
	parent := ""
	for _, layer := range arguments[1:] {
		file, err := os.Open(layer)
		if err != nil {
			return err
		}
		defer file.Close()
		image, err := images.Create(file, "made by hand", parent, "", "", &runconfig.Config{}, &runconfig.Config{})
		if err != nil {
			return err
		}
		parent = image.ID
	}
	name, tag := parts(arguments[0])
	return names.Tag(name, tag, parent, true)
}

// parts splits NAME:TAG, of which the host may have a port.
func parts(reference string) (name, tag string) {
	if at := strings.LastIndex(reference, ":"); at > strings.LastIndex(reference, "/") {
		return reference[:at], reference[at+1:]
	}
	return reference, ""
}
