// Package state is the contract of state stores: values under keys that
// outlive a request, with versions (ETags), expiry and transactions.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else uses [Store], which adds what all stores share: the prefix
// that keeps apps apart, checks of keys and metadata, encryption, the outbound
// policy, opening in the background and error kinds.
//
// A change that returned nil is as durable as the store makes things. A change
// that names an ETag is carried out only when the item still has it, else it
// fails with kind Conflict and nothing is changed.
package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/component"
)

// Driver is what an implementation returns from its open function.
type Driver interface {
	// Get reads the items under keys and returns one for each, in their order:
	// in one round trip where the store can read many at once, else with the
	// help of [Each]. An item that is not there is the zero Item. One that
	// alone cannot be read has Err; the error is for when none can.
	Get(ctx context.Context, keys []string, r Read) ([]Item, error)
	// Apply carries out each change by itself, those of one key in their order.
	// It returns nil when all are done, a *BatchError when some are, and any
	// other error when none is known to be. A change whose ETag or FirstWrite
	// does not hold fails with kind Conflict, one whose ETag cannot be one of
	// this store's with kind Invalid. Deleting what is not there is no error,
	// unless an ETag was named.
	Apply(ctx context.Context, changes []Change) error
	// Close frees everything.
	Close(ctx context.Context) error
}

// Transactor is implemented by drivers with transactions: all changes are
// carried out, in their order, or none is.
type Transactor interface {
	Transact(ctx context.Context, changes []Change) error
}

// Lister is implemented by drivers that can list their keys.
type Lister interface {
	// Keys returns keys that begin with prefix, at most limit of them, and a
	// token for the rest, empty at the end. A token is the driver's own; the
	// first is empty. What is expired is left out. Keys come in no order, and
	// one that is written meanwhile may be missed.
	Keys(ctx context.Context, prefix, token string, limit int) (keys []string, next string, err error)
}

// Read says how to read.
type Read struct {
	// Strong asks for the latest value, where a store has a choice.
	Strong bool
	// Parallel is how many keys a driver may read at once when it must read
	// one by one; at least 1.
	Parallel int
	// Metadata is that of the request. May be nil.
	Metadata map[string]string
}

// Item is a value as it is stored.
type Item struct {
	// Found tells whether there is one.
	Found bool
	// Value is what was saved, byte for byte.
	Value []byte
	// ETag is the version; empty when the store has none.
	ETag string
	// Expires is when the item goes; zero: never, or the store cannot tell.
	Expires time.Time
	// Err is why this item could not be read.
	Err error
}

// Change is one value to save or to delete. Implementations do not change what
// it holds.
type Change struct {
	Key string
	// Delete deletes the item; Value, Binary and TTL mean nothing then.
	Delete bool
	Value  []byte
	// Binary: Value came as bytes. Otherwise it is JSON text, which stores with
	// a JSON type keep as such.
	Binary bool
	// ETag is the version that the item must have; nil when any will do. [Store]
	// takes an empty one for none.
	ETag *string
	// FirstWrite without an ETag: there must be no item of that key yet. With
	// one it adds nothing.
	FirstWrite bool
	// Strong asks for a write that all replicas have seen, where a store has a
	// choice.
	Strong bool
	// TTL is how long to keep the item, in whole seconds, from now. Zero: as
	// long as the store's own default says; negative: for ever.
	TTL time.Duration
	// Metadata is that of the request. May be nil.
	Metadata map[string]string
}

// Features are what a driver can do beyond the contract. A driver that has
// some implements Featured.
type Features struct {
	// ETag: items have versions, and ETag and FirstWrite of a change are heeded.
	// Without it they have no effect, which [Store] logs once.
	ETag bool
	// TTL: items go by themselves after Change.TTL.
	TTL bool
	// MaxChanges is the most changes of one transaction; 0: no limit.
	MaxChanges int
	// NoTransactions: the driver is a Transactor, but not as it is configured.
	NoTransactions bool
}

// Featured is implemented by drivers that have features.
type Featured interface{ Features() Features }

// BatchError says which changes were not carried out.
type BatchError struct {
	// Errs has one entry per change, nil where it was carried out.
	Errs []error
}

// Batch returns nil when all of errs are nil, else a *BatchError.
func Batch(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return &BatchError{Errs: errs}
		}
	}
	return nil
}

// Error counts the failed changes and shows the first failure; of a single
// change it shows that alone.
func (e *BatchError) Error() string {
	failed, first := 0, error(nil)
	for _, err := range e.Errs {
		if err == nil {
			continue
		}
		if failed++; first == nil {
			first = err
		}
	}
	if len(e.Errs) == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d of %d changes failed: %v", failed, len(e.Errs), first)
}

// Unwrap returns the failures; the kind of the first is the kind of all.
func (e *BatchError) Unwrap() []error {
	var out []error
	for _, err := range e.Errs {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// common are the options that every state store has.
type common struct {
	KeyPrefix       string           `meta:"keyPrefix" doc:"What stands before every key, followed by ||: appid, name (of the component), namespace (with the app id), none, or a text of its own." default:"appid"`
	ActorStateStore bool             `meta:"actorStateStore" doc:"Marks the one store that actors use."`
	PrimaryKey      component.Secret `meta:"primaryEncryptionKey" doc:"Encrypts values (AES-GCM): 16, 24 or 32 bytes in hexadecimal, from a secret store."`
	SecondaryKey    component.Secret `meta:"secondaryEncryptionKey" doc:"Also decrypts values, so that keys can be changed."`
	OutboxPubSub    string           `meta:"outboxPublishPubsub" doc:"Outbox: the pub/sub to publish to what a transaction saves."`
	OutboxTopic     string           `meta:"outboxPublishTopic" doc:"Outbox: the topic to publish to."`

	OutboxInternal   component.Ignored `meta:"outboxPubsub" doc:"Dapr's outbox sends intents through it; here they are in the transaction itself."`
	OutboxDiscarding component.Ignored `meta:"outboxDiscardWhenMissingState" doc:"There are no intents without their transaction here."`
}

// Check implements component.Checker.
func (o common) Check() error {
	_, prefix := prefixOf(o.KeyPrefix, "", component.Env{})
	_, outbox := outboxOf(o)
	return errors.Join(prefix, outbox)
}

// Define makes the definition of a store called "state.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.WithCommon[common](component.Define("state."+name, about, component.OptionsOf(common{}), open))
}

// DefineAny makes the definition of a store that lives outside this process and
// alone knows its options; see [component.DefineAny].
func DefineAny(name string, about component.About, open func(context.Context, component.Env, map[string]string) (Driver, error)) component.Definition {
	return component.WithCommon[common](component.DefineAny("state."+name, about, component.OptionsOf(common{}), open))
}
