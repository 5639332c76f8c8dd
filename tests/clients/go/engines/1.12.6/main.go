// Command engine is engine 1.12.6's moving of images, without containers: -u NAME:PASSWORD ROOT COMMAND ARGUMENT...
//
// Storage, archives and the registry's protocols are the engine's own code, called as its daemon calls it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/docker/docker/daemon/graphdriver/vfs"
	"github.com/docker/docker/distribution"
	"github.com/docker/docker/distribution/metadata"
	"github.com/docker/docker/distribution/xfer"
	"github.com/docker/docker/dockerversion"
	"github.com/docker/docker/image"
	"github.com/docker/docker/image/tarexport"
	"github.com/docker/docker/layer"
	"github.com/docker/docker/pkg/progress"
	"github.com/docker/docker/pkg/reexec"
	"github.com/docker/docker/reference"
	"github.com/docker/docker/registry"
	"github.com/docker/engine-api/types"
	"github.com/docker/engine-api/types/container"
	"github.com/docker/libtrust"
	"golang.org/x/net/context"
)

const transfers = 3 // at a time, of each kind, as the daemon has it by default

func main() {
	if reexec.Init() { // it unpacks layers in a process of its own
		return
	}
	account := flag.String("u", "", "NAME:PASSWORD")
	flag.Parse()
	who, password, _ := strings.Cut(*account, ":")
	as := &types.AuthConfig{Username: who, Password: password}
	if err := run(as, flag.Arg(0), flag.Arg(1), flag.Args()[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// engine is what the daemon keeps of images.
type engine struct {
	layers layer.Store
	images image.Store
	names  reference.Store
	pulls  distribution.ImagePullConfig
}

// LogImageEvent tells nobody.
func (*engine) LogImageEvent(string, string, string) {}

// WriteProgress tells nobody.
func (*engine) WriteProgress(progress.Progress) error { return nil }

func open(as *types.AuthConfig, root string) (*engine, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	layers, err := layer.NewStoreFromOptions(layer.StoreOptions{
		StorePath:                 root,
		MetadataStorePathTemplate: filepath.Join(root, "%s-layers"),
		GraphDriver:               "vfs",
	})
	if err != nil {
		return nil, err
	}
	kept, err := image.NewFSStoreBackend(filepath.Join(root, "images"))
	if err != nil {
		return nil, err
	}
	images, err := image.NewImageStore(kept, layers)
	if err != nil {
		return nil, err
	}
	known, err := metadata.NewFSMetadataStore(filepath.Join(root, "distribution"))
	if err != nil {
		return nil, err
	}
	names, err := reference.NewReferenceStore(filepath.Join(root, "names.json"))
	if err != nil {
		return nil, err
	}
	e := &engine{layers: layers, images: images, names: names}
	e.pulls = distribution.ImagePullConfig{
		AuthConfig:       as,
		ProgressOutput:   e,
		RegistryService:  registry.NewService(registry.ServiceOptions{}),
		ImageEventLogger: e.LogImageEvent,
		MetadataStore:    known,
		ImageStore:       images,
		ReferenceStore:   names,
		DownloadManager:  xfer.NewLayerDownloadManager(layers, transfers),
	}
	return e, nil
}

func run(as *types.AuthConfig, root, command string, arguments []string) error {
	e, err := open(as, root)
	if err != nil {
		return err
	}
	nobody := context.Background()
	agent := dockerversion.DockerUserAgent(nobody)
	switch command {
	case "search":
		found, err := e.pulls.RegistryService.Search(nobody, arguments[0], 25, as, agent, nil)
		if err == nil {
			for _, each := range found.Results {
				fmt.Println(each.Name)
			}
		}
		return err
	case "login":
		as.ServerAddress = arguments[0]
		said, _, err := e.pulls.RegistryService.Auth(nobody, as, agent)
		fmt.Println(said)
		return err
	case "save":
		return tarexport.NewTarExporter(e.images, e.layers, e.names, e).Save(arguments, os.Stdout)
	}
	name, err := reference.ParseNamed(arguments[0])
	if err != nil {
		return err
	}
	switch command {
	case "load":
		return e.load(name, arguments[1:])
	case "push":
		return e.push(nobody, name)
	case "pull":
		return distribution.Pull(nobody, name, &e.pulls)
	}
	return fmt.Errorf("no command %q", command)
}

func (e *engine) push(ctx context.Context, name reference.Named) error {
	key, err := libtrust.GenerateECP256PrivateKey()
	if err != nil {
		return err
	}
	return distribution.Push(ctx, name, &distribution.ImagePushConfig{
		AuthConfig:       e.pulls.AuthConfig,
		ProgressOutput:   e,
		RegistryService:  e.pulls.RegistryService,
		ImageEventLogger: e.LogImageEvent,
		MetadataStore:    e.pulls.MetadataStore,
		LayerStore:       e.layers,
		ImageStore:       e.images,
		ReferenceStore:   e.names,
		TrustKey:         key,
		UploadManager:    xfer.NewLayerUploadManager(transfers),
	})
}

// load makes an image of layers, base first.
func (e *engine) load(name reference.Named, files []string) error {
	root := image.NewRootFS()
	made := image.Image{V1Image: image.V1Image{
		Architecture: "amd64", OS: "linux", Created: time.Now().UTC(), Config: &container.Config{},
	}}
	for _, file := range files {
		content, err := os.Open(file)
		if err != nil {
			return err
		}
		defer content.Close()
		put, err := e.layers.Register(content, root.ChainID())
		if err != nil {
			return err
		}
		root.Append(put.DiffID())
		made.History = append(made.History, image.History{Created: made.Created})
	}
	made.RootFS = root
	config, err := json.Marshal(made)
	if err != nil {
		return err
	}
	id, err := e.images.Create(config)
	if err != nil {
		return err
	}
	return e.names.AddTag(name, id, true)
}
