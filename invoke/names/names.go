// Package names is the contract of name resolution: where the sidecars of an app
// can be reached, and how this one is found by others.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else asks a [Directory], which adds what all of them share: a cache
// that is refreshed in the background, the choice among several instances, the
// memory of those that cannot be reached, opening in the background and error
// kinds.
//
// A Directory never waits for a resolver while it knows an instance that was
// there in the last 30 s, asks it about one app once at a time, and never keeps
// an app from its last instance, so that a call always ends with the real error.
package names

import (
	"context"
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// App is who is looked for.
type App struct {
	ID string
	// Namespace is empty for that of the process itself.
	Namespace string
}

// Driver is what an implementation returns from its open function.
type Driver interface {
	component.Driver
	// Resolve returns the addresses, host:port, of the internal gRPC servers of
	// the app's instances, in any order. The error is of kind NotFound when there
	// is none. It returns soon after ctx has ended.
	Resolve(ctx context.Context, app App) ([]string, error)
}

// Announcer is a Driver that can make this process findable.
type Announcer interface {
	// Announce makes self findable until ctx ends, then takes it back and returns
	// nil. An error means that self is not findable any more, or never was.
	Announce(ctx context.Context, self Self) error
}

// Self is what others may learn of this process.
type Self struct {
	App
	// Instance tells the processes of one app apart, also on one machine.
	Instance string
	// Host is the address that other machines reach this one by.
	Host string
	// InternalPort is that of the internal gRPC server; the others are zero when
	// there is none.
	InternalPort, HTTPPort, GRPCPort, AppPort int
}

// Kind is the first part of the type of every resolver.
const Kind = "nameresolution"

// Define makes the definition of a resolver called "nameresolution.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define(Kind+"."+name, about, nil, open)
}

// InternalPort is that of the internal gRPC servers where nobody says another
// one.
const InternalPort = 50002

// CheckHost refuses what cannot be a part of a host name: an id or a namespace
// that is put into an address must not change what the rest of it means. Kind
// NotFound: no app is called so.
func CheckHost(word string) error {
	for _, c := range []byte(word) {
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fault.New(fault.NotFound, "%q cannot be a part of a host name", short(word))
		}
	}
	if word == "" || len(word) > 253 || strings.Contains(word, "..") || word[0] == '.' {
		return fault.New(fault.NotFound, "%q cannot be a part of a host name", short(word))
	}
	return nil
}
