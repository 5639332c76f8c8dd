// Package jobs runs the moving of images of an engine whose parts speak by jobs (1.0 to 1.6), without containers.
//
// Storage, archives and the registry's protocol are the engine's own code, called as its daemon calls it.
package jobs

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/daemon/graphdriver"
	_ "github.com/docker/docker/daemon/graphdriver/vfs"
	"github.com/docker/docker/engine"
	"github.com/docker/docker/graph"
	"github.com/docker/docker/pkg/reexec"
	"github.com/docker/docker/runconfig"
)

// Parts makes what versions make differently: the store of names, and the services beside it.
type Parts func(eng *engine.Engine, root string, images *graph.Graph) (*graph.TagStore, error)

// Main is the program: -u NAME:PASSWORD ROOT COMMAND ARGUMENT...
func Main(make Parts) {
	if reexec.Init() { // it unpacks layers in a process of its own
		return
	}
	account := flag.String("u", "", "NAME:PASSWORD")
	flag.Parse()
	if err := run(make, *account, flag.Arg(0), flag.Arg(1), flag.Args()[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(make Parts, account, root, command string, arguments []string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	driver, err := graphdriver.GetDriver("vfs", root, nil)
	if err != nil {
		return err
	}
	images, err := graph.NewGraph(filepath.Join(root, "graph"), driver)
	if err != nil {
		return err
	}
	eng := engine.New()
	eng.Logging = false
	for _, unneeded := range []string{"log", "trust_update_base", "trust_key_check"} {
		eng.Register(unneeded, func(*engine.Job) engine.Status { return engine.StatusOK })
	}
	names, err := make(eng, root, images)
	if err != nil {
		return err
	}
	if err := names.Install(eng); err != nil {
		return err
	}
	if command == "load" {
		return load(images, names, arguments)
	}
	return runJob(eng, account, command, arguments)
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
	return names.Set(name, tag, parent, true)
}

func runJob(eng *engine.Engine, account, command string, arguments []string) error {
	var job *engine.Job
	switch command {
	case "tag":
		name, tag := parts(arguments[1])
		job = eng.Job("tag", arguments[0], name, tag)
	case "push":
		name, tag := parts(arguments[0])
		job = eng.Job("push", name)
		job.Setenv("tag", tag)
	case "pull":
		name, tag := parts(arguments[0])
		job = eng.Job("pull", name, tag)
	case "save":
		job = eng.Job("image_export", arguments...)
	case "search":
		job = eng.Job("search", arguments...)
	case "login":
		job = eng.Job("auth")
	default:
		return fmt.Errorf("no command %q", command)
	}
	who, password, _ := strings.Cut(account, ":")
	config := map[string]string{"username": who, "password": password, "email": who + "@example.com"}
	if command == "login" {
		config["serveraddress"] = arguments[0]
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		return err
	}
	job.Setenv("authConfig", string(encoded))
	job.Stdout.Add(os.Stdout)
	return job.Run()
}

// parts splits NAME:TAG, of which the host may have a port.
func parts(reference string) (name, tag string) {
	if at := strings.LastIndex(reference, ":"); at > strings.LastIndex(reference, "/") {
		return reference[:at], reference[at+1:]
	}
	return reference, ""
}
