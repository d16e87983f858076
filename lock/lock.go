// Package lock is the contract of lock stores: one owner at a time holds what
// a name stands for, until it lets go or its time is over.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else uses [Store], which adds what all stores share: the prefix
// that keeps apps apart, checks, the outbound policy, opening in the background
// and error kinds.
//
// Two owners never hold one lock at the same time by the store's clock. An
// owner that was away longer than its lock lasts may still believe that it
// holds it: the fencing token, which grows with every grant of the store, is
// what a resource tells a late owner by.
package lock

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/component"
)

// Driver is what an implementation returns from its open function. Keys have
// their prefix.
type Driver interface {
	// TryLock grants the lock under key to owner for as long as expiry, unless
	// somebody holds it, the same owner included. It does not wait.
	TryLock(ctx context.Context, key, owner string, expiry time.Duration) (Grant, error)
	// Renew makes the lock that owner holds last as long as expiry from now. It
	// never makes one that is gone.
	Renew(ctx context.Context, key, owner string, expiry time.Duration) (Status, error)
	// Unlock lets go of the lock that owner holds.
	Unlock(ctx context.Context, key, owner string) (Status, error)
	// Close frees everything but the locks, which last as they were granted.
	Close(ctx context.Context) error
}

// Noter is implemented by drivers that keep a note with a lock: a text that
// stays when the lock is gone, and tells the next owner how far the last one got.
type Noter interface {
	// Note returns the note of the lock under key; empty when there is none.
	Note(ctx context.Context, key string) (string, error)
	// SetNote replaces the note when owner holds the lock, and tells who does
	// otherwise. The check and the change are one step.
	SetNote(ctx context.Context, key, owner, text string) (Status, error)
}

// Grant is the answer to a try.
type Grant struct {
	// Held tells whether the lock is the caller's.
	Held bool
	// Token is the fencing token of a lock that is held: a positive number that
	// is larger than that of every grant before, of whichever lock of the store,
	// also after the store was started again. It is below 2^53.
	Token int64
}

// Status is how an unlock or a renewal ended. The numbers are Dapr's.
type Status int32

// The statuses.
const (
	// Done: the lock was the caller's; it is gone, or renewed.
	Done Status = iota
	// Missing: nobody holds the lock.
	Missing
	// Foreign: somebody else holds it.
	Foreign
	// Failed: the store did not say. It comes with an error.
	Failed
)

// common are the options that every lock store has.
type common struct {
	KeyPrefix string `meta:"keyPrefix" doc:"What stands between lock|| and the name of a lock, followed by ||: appid, name (of the component), none, or a text of its own." default:"appid"`
}

// Check implements component.Checker.
func (o common) Check() error {
	_, err := prefixOf(o.KeyPrefix, "", "")
	return err
}

// Define makes the definition of a store called "lock.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.WithCommon[common](component.Define("lock."+name, about, component.OptionsOf(common{}), open))
}
