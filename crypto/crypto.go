// Package crypto is the contract of crypto components: those that hold keys and
// wrap other keys with them.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else uses [Provider], which encrypts and decrypts whole streams in
// the format of package enc, and adds policy and error kinds.
//
// The package promises that a driver never sees the data, only the key of one
// document at a time; that a stream takes little memory, whatever its length;
// and that no key and no data reaches a log or an error text.
package crypto

import (
	"context"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/crypto/enc"
)

// Driver is what an implementation returns from its open function.
type Driver interface {
	// WrapKey wraps a file key with the key called name. Kinds: NotFound when
	// there is none of that name, Invalid when it cannot do that.
	WrapKey(ctx context.Context, name string, a enc.Algorithm, fileKey []byte) ([]byte, error)
	// UnwrapKey is the reverse. Kinds: as WrapKey; Invalid also when it was
	// another key.
	UnwrapKey(ctx context.Context, name string, a enc.Algorithm, wrapped []byte) ([]byte, error)
	// Close frees everything.
	Close(ctx context.Context) error
}

// Define makes the definition of a component called "crypto.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define("crypto."+name, about, nil, open)
}
