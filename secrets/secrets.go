// Package secrets is the contract of secret stores.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else uses [Store], which adds scopes and error kinds.
//
// The package promises that a secret outside the scopes is told apart from a
// missing one only by its kind, never by its value, and that no value reaches a
// log or an error text.
package secrets

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/component"
)

// Driver is what an implementation returns from its open function.
type Driver interface {
	// Get returns the secret under key: usually one pair whose name is key,
	// several for a multi-valued secret. A missing key is an error of kind
	// fault.NotFound. The caller may change the answer. What the metadata of the
	// request means is the store's, such as a version; it may be nil, and what the
	// store does not know in it is not looked at.
	Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error)
	// Bulk returns every secret the store gives out.
	Bulk(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error)
	// Close frees everything.
	Close(ctx context.Context) error
}

// Namer is implemented by a driver that knows a secret under several keys. A
// scope that denies one of them denies all; one that allows a key allows that
// key alone.
type Namer interface {
	// Names returns the other keys of the secret under key.
	Names(key string) []string
}

// Watcher is implemented by a driver that notices by itself that its secrets
// may have changed, such as one that reads a file. The others are read again in
// intervals, and it is too.
type Watcher interface {
	// Watch calls changed each time, until ctx ends, and then returns.
	Watch(ctx context.Context, changed func())
}

// common are the options that every secret store has.
type common struct {
	Rotation time.Duration `meta:"rotationInterval" doc:"How often the secrets that components take from the store are read again: a component whose secret has changed is opened anew. 0 is never; less than 1s counts as 1s." default:"1m"`
}

// minRotation is the shortest interval.
const minRotation = time.Second

// Define makes the definition of a store called "secretstores.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define("secretstores."+name, about, component.OptionsOf(common{}), open)
}

// DefineAny makes the definition of a store that lives outside this process and
// alone knows its options; see [component.DefineAny].
func DefineAny(name string, about component.About, open func(context.Context, component.Env, map[string]string) (Driver, error)) component.Definition {
	return component.DefineAny("secretstores."+name, about, component.OptionsOf(common{}), open)
}
