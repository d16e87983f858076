// Package pluggable runs components that live in programs of their own and
// speak gRPC over a Unix socket, by the protocol dapr.proto.components.v1.
//
// A [Finder] knows the components of the build and, for every socket in a
// folder, those that the program behind it serves: redis.sock is pubsub.redis,
// bindings.redis, secretstores.redis and state.redis. The program need not run
// when its type is looked up; it is asked what it serves when a component is
// opened. Every component has a connection of its own, whose calls carry its
// name in x-component-instance.
//
// Delivery: at least once. A message is answered when the route has settled it:
// an ack or a drop without an error, a retry with one, after the pause that the
// route asked for. What is left is not answered: it comes again when its stream
// has ended. A program that dies and comes back is connected to again with the
// next call, told Init before anything else, and sends again what was not
// answered.
//
// Bounds: messages of 16 MiB, 1,000 messages of a stream that wait for their
// pause, 10,000 ids whose attempts are counted, 5 s (or initTimeout) to connect
// and be told Init, 1 s for a stream to end after its last answer.
package pluggable

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/state"
)

// FolderVariable is the environment variable that names the folder of sockets,
// and DefaultFolder the folder when it is not set.
const (
	FolderVariable = "DAPR_COMPONENTS_SOCKETS_FOLDER"
	DefaultFolder  = "/tmp/dapr-components-sockets"
)

// Finder finds components of the build first, then those with a socket. A
// socket that was there once stays known, since programs remove it when they
// restart. Make one with [New]; it may be used by many goroutines.
type Finder struct {
	build  component.List
	folder string

	mu   sync.Mutex        // guards seen
	seen map[string]string // sockets found, by lower-case name
}

// New makes a finder. An empty folder means [DefaultFolder]; it need not exist.
func New(build component.List, folder string) *Finder {
	if folder == "" {
		folder = DefaultFolder
	}
	return &Finder{build: build, folder: folder, seen: map[string]string{}}
}

// Find implements [component.Finder]. The error for a type that nobody knows
// says which socket would make it known.
func (f *Finder) Find(typ, version string) (component.Definition, error) {
	def, err := f.build.Find(typ, version)
	kind, name, _ := strings.Cut(typ, ".")
	kind = strings.ToLower(kind)
	if err == nil || fault.KindOf(err) != fault.NotFound || name == "" || runtime.GOOS == "windows" {
		return def, err
	}
	path := f.socket(name)
	switch {
	case kind == "pubsub" && path != "":
		def = pubsub.DefineAny(name, brokerAbout(name), openBroker(path))
	case kind == "bindings" && path != "":
		def = bindings.DefineAny(name, bindingAbout(name), openBinding(path))
	case kind == "secretstores" && path != "":
		def = secrets.DefineAny(name, secretsAbout(name), openSecrets(path))
	case kind == "state" && path != "":
		def = state.DefineAny(name, stateAbout(name), openState(path))
	case slices.Contains([]string{"pubsub", "bindings", "secretstores", "state"}, kind):
		return def, also(err, "as a pluggable component it needs its socket %.80s.sock in %s (set %s for another folder), which is not there", name, f.folder, FolderVariable)
	default:
		return def, err
	}
	return component.List{def}.Find(typ, version)
}

// also adds a sentence to an error of the build's list, which may be a question.
func also(err error, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if strings.HasSuffix(err.Error(), "?") {
		return fault.New(fault.NotFound, "%w %s", err, strings.ToUpper(text[:1])+text[1:])
	}
	return fault.New(fault.NotFound, "%w; %s", err, text)
}

// socket returns the path of the socket of a name, or nothing.
func (f *Finder) socket(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := strings.ToLower(name)
	entries, _ := os.ReadDir(f.folder) // a folder that is not there has no sockets
	for _, e := range entries {
		bare := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if !strings.EqualFold(bare, name) {
			continue
		}
		path := filepath.Join(f.folder, e.Name())
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			f.seen[key] = path
			break
		}
	}
	return f.seen[key]
}

func brokerAbout(name string) component.About {
	return component.About{
		Summary: "The pluggable pub/sub behind the socket " + name,
		Ack:     "Told to the component after the route settled the message; what it does then is its own",
		Order:   "The component's; a message given back comes again later",
		Limits:  "Messages of 16 MiB; 1,000 messages of a subscription waiting for their next try",
		Scale:   "The component's; subscriptions carry their group as consumerID",
		Dapr:    "A retry is answered with an error after its pause; what is left at a stop is not answered; Init comes again when the component's process does",
		Example: example("pubsub", name),
	}
}

func bindingAbout(name string) component.About {
	return component.About{
		Summary:      "The pluggable binding behind the socket " + name,
		Ack:          "In: told to the component after the route settled the event. Out: the component answered",
		Order:        "The component's; an event given back comes again later",
		Limits:       "Messages of 16 MiB; 1,000 events waiting for their next try",
		Scale:        "The component's",
		Dapr:         "A retry is answered with an error after its pause; answers hold no response data; Init comes again when the component's process does",
		Example:      example("bindings", name),
		Capabilities: []string{bindings.InputCapability, bindings.OutputCapability}, // the open driver knows
	}
}

func example(kind, name string) string {
	return `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: mine
spec:
  type: ` + kind + "." + name + `
  version: v1
  metadata:
  - name: anything
    value: the component understands
`
}
