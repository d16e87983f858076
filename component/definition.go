// Package component is the common part of everything that is configured by a
// Component document: what it is called, which options it has and how it is
// opened.
//
// One options struct is the only description of a component's settings. Its
// field tags give decoding, defaults, messages about unknown keys, `penstock
// describe`, the JSON schema and the reference page. A component is made with
// Define of its contract's package (bindings, pubsub, secrets), which calls
// [Define] here, and is listed in package all.
//
// The package promises that decoding reports every problem at once, each with
// its place in the file, and that an [Instance] never blocks a start: a server
// that cannot be reached is tried again in the background.
package component

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Driver is what every opened component can do. Close is called once, after
// nothing uses the driver any more; it may wait for the network until ctx ends.
type Driver interface {
	Close(ctx context.Context) error
}

// Capable is implemented by a driver that knows better than its definition's
// About what it can do, such as one that asked another process.
type Capable interface{ Capabilities() []string }

// Env is what a component gets to know of the process that opens it.
type Env struct {
	// AppID and Namespace identify the app; Namespace may be empty.
	AppID, Namespace string
	// Name is the name of this component.
	Name string
	// Version is that of the component's type, in lower case, for those that have
	// several; empty is the usual one.
	Version string
	// DataDir is where embedded components keep files, "./.penstock" unless
	// set. It may not exist yet.
	DataDir string
	// Logger has the component's name attached.
	Logger *slog.Logger
	// Shared holds what several components use together: one connection per
	// backing system, one listener per address.
	Shared *Shared
	// Metrics count what the component does; nil: nothing does.
	Metrics *telemetry.Metrics
	// Tracer makes spans of what the component does; nil: none.
	Tracer *trace.Tracer
	// Position is of an input that one replica reads at a time, nil of any other.
	Position Position
}

// Position keeps how far an input has been read, where the replica that goes on
// with it finds it. Save fails with kind Conflict when that has begun already.
type Position interface {
	// Load returns what was saved last, by whichever replica; empty is nothing.
	Load(ctx context.Context) (string, error)
	Save(ctx context.Context, text string) error
}

// About is what people read about a component.
type About struct {
	// Summary is one sentence without a full stop.
	Summary string
	// Ack says what an acknowledgement means here: when the event is safe.
	Ack string
	// Order says which order is kept.
	Order string
	// Limits names the bounds, with their numbers.
	Limits string
	// Scale says how several processes share the work.
	Scale string
	// Dapr says what differs from Dapr's component of the same name; empty
	// when there is none of that name.
	Dapr string
	// Example is a whole Component document in YAML.
	Example string
	// Capabilities are the words of the metadata document, such as
	// "INPUT_BINDING" and "OUTPUT_BINDING".
	Capabilities []string
	// Operations are those of an output binding.
	Operations []string
	// Versions of the type, the usual one first; v1 alone when empty.
	Versions []string
	// Also are further types that files may call it by, such as an older one of
	// Dapr's.
	Also []string
}

// Definition is one component of the build.
type Definition struct {
	// Type is kind and name: "bindings.cron".
	Type string
	// Versions are those accepted, the usual one first: "v1".
	Versions []string
	// About is for people.
	About About
	// Options are the component's own, in the order of the struct; Common are
	// those every component of the kind has.
	Options, Common []Option

	check func([]config.Item) config.Problems
	open  func(context.Context, Env, []config.Item) (Driver, error)
}

// Checker is implemented by an options struct whose fields must fit each
// other. Check runs after decoding, without touching the network or the disk.
// Use [OptionErrorf] to name the option at fault; join several with
// [errors.Join].
type Checker interface{ Check() error }

// Define makes a definition; the contracts' own Define call it. O is the
// options struct. It panics when a tag of O cannot be understood: a mistake of
// ours, found by any test.
func Define[O any, D Driver](typ string, about About, common []Option, open func(context.Context, Env, O) (D, error)) Definition {
	return define(typ, about, common, func(ctx context.Context, env Env, _ []config.Item, o O) (Driver, error) { return open(ctx, env, o) })
}

// define makes a definition whose open gets the options and the items they were
// decoded from.
func define[O any](typ string, about About, common []Option, open func(context.Context, Env, []config.Item, O) (Driver, error)) Definition {
	var zero O
	versions := about.Versions
	if len(versions) == 0 {
		versions = []string{"v1"}
	}
	return Definition{
		Type:     typ,
		Versions: versions,
		About:    about,
		Options:  optionsOf(zero),
		Common:   common,
		check: func(items []config.Item) config.Problems {
			var o O
			return decode(typ, items, common, &o)
		},
		open: func(ctx context.Context, env Env, items []config.Item) (Driver, error) {
			var o O
			problems := append(unfetched(items), decode(typ, items, common, &o)...)
			if errs, _ := problems.Split(false); len(errs) > 0 {
				return nil, fault.As(fault.Invalid, errs)
			}
			return open(ctx, env, items, o)
		},
	}
}

// DefineAny makes a definition for a component that lives outside this process
// and alone knows its options: every item is handed on as it stands, the common
// ones too, under the name it is written with. Items with secrets have their
// values filled in.
func DefineAny[D Driver](typ string, about About, common []Option, open func(context.Context, Env, map[string]string) (D, error)) Definition {
	return define(typ, about, common, func(ctx context.Context, env Env, items []config.Item, _ anyOptions) (Driver, error) {
		all := make(map[string]string, len(items))
		for _, it := range items {
			all[it.Name] = it.Value
		}
		return open(ctx, env, all)
	})
}

// anyOptions describes and checks the options of DefineAny.
type anyOptions struct {
	Any map[string]string `meta:"*" doc:"Whatever the component understands; handed to it as written."`
}

// Check decodes the items and returns every problem, unknown options included
// (those are marked Lenient). It opens nothing. A problem that no item is to
// blame for, such as a missing option, has no Place: the caller fills in that of
// the component. The value of an item that is still a reference to a secret is
// taken for right, and options are then not held against each other.
func (d Definition) Check(items []config.Item) config.Problems { return d.check(items) }

// WithCommon returns d with the common options checked as a C, a [Checker]: what
// it says is told when nothing else is wrong.
func WithCommon[C Checker](d Definition) Definition {
	own := d.check
	d.check = func(items []config.Item) config.Problems {
		problems := own(items)
		if errs, _ := problems.Split(false); len(errs) > 0 {
			return problems
		}
		_, more := Decode[C](d.Type, items, d.Options)
		errs, _ := more.Split(false)
		return append(problems, errs...)
	}
	return d
}

// Unneeded returns the names of the given options that are accepted and have no
// effect, with the reason of each, for the log.
func (d Definition) Unneeded(items []config.Item) map[string]string {
	why := map[string]string{}
	for _, o := range d.Options {
		for _, it := range items {
			known := func(name string) bool { return strings.EqualFold(name, it.Name) }
			if o.Type == "ignored" && slices.ContainsFunc(o.words(), known) {
				why[o.Name] = o.Doc
			}
		}
	}
	return why
}

// unfetched returns a problem for each item whose secret nobody fetched.
func unfetched(items []config.Item) (ps config.Problems) {
	for _, it := range items {
		if unresolved(it) {
			ps = append(ps, config.Problem{Place: it.Place, Text: fmt.Sprintf("option %q has no value yet: its secret was not fetched", it.Name)})
		}
	}
	return ps
}

// Open decodes the items and opens the component. A problem in the items is a
// [config.Problems] inside an error of kind Invalid; unknown options are not an
// error here.
func (d Definition) Open(ctx context.Context, env Env, items []config.Item) (Driver, error) {
	return d.open(ctx, env, items)
}
