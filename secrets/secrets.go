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

// Define makes the definition of a store called "secretstores.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define("secretstores."+name, about, nil, open)
}
