package configuration

import (
	"context"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Limits of a request, the same for every store.
const (
	// MaxKeys is how many keys a request may name.
	MaxKeys = 1000
	// MaxKey is the longest key, in bytes.
	MaxKey = 4 << 10
	// MaxItems is how many items an answer may have.
	MaxItems = 10_000
)

// Store is one configured configuration store: the type everybody but
// implementations uses.
type Store struct {
	name     string
	instance *component.Instance[Driver]
	policy   atomic.Pointer[resilience.Policy] // nil: none
	calls    *telemetry.Calls
	tracer   *trace.Tracer
}

// New makes the store of a component; nothing is opened before Run of its
// instance.
func New(def component.Definition, env component.Env, c config.Component) (*Store, error) {
	return &Store{
		name: c.Name, instance: component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout), calls: env.Metrics.Calls(telemetry.Configuration, c.Name), tracer: env.Tracer,
	}, nil
}

// Instance returns the component's life: opening, state, closing.
func (s *Store) Instance() *component.Instance[Driver] { return s.instance }

// Name returns the component's name.
func (s *Store) Name() string { return s.name }

// SetPolicy makes p the policy of every call from the next one on; nil is none.
func (s *Store) SetPolicy(p *resilience.Policy) { s.policy.Store(p) }

// Get reads the items under keys, or all there are when none is named; what is
// not there is left out. Kinds: Invalid for keys that cannot be, Exhausted for
// more than MaxItems, the rest from the store.
func (s *Store) Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]Item, error) {
	if err := check(keys); err != nil {
		return nil, fault.Wrap(err, "get from %s", s.name)
	}
	var items map[string]Item
	try := func(ctx context.Context) error {
		d, err := s.instance.Acquire()
		if err != nil {
			return err
		}
		defer s.instance.Release()
		items, err = d.Get(ctx, keys, metadata)
		return s.instance.Hide(err)
	}
	var err error
	began := s.calls.Begin()
	ctx, span := s.tracer.Call(ctx, "configuration", s.name, "get")
	defer func() {
		span.Done(err)
		s.calls.Done("get", began, err)
	}()
	if p := s.policy.Load(); p != nil {
		err = p.Do(ctx, try)
	} else {
		err = try(ctx)
	}
	if err == nil && len(items) > MaxItems {
		err = TooMany()
	}
	if err != nil {
		return nil, fault.Wrap(err, "get from %s", s.name)
	}
	return items, nil
}

// TooMany is the error for more items than an answer may have, for drivers that
// can tell before they have read them all.
func TooMany() error {
	return fault.New(fault.Exhausted, "there are more than %d items; name the keys", MaxItems)
}

// watch hears of changes for as long as it can.
func (s *Store) watch(ctx context.Context, w Watch) error {
	d, err := s.instance.Await(ctx)
	if err != nil {
		return fault.Wrap(err, "watch %s", s.name)
	}
	return fault.Wrap(s.instance.Hide(d.Watch(ctx, w)), "watch %s", s.name)
}

func check(keys []string) error {
	if len(keys) > MaxKeys {
		return fault.New(fault.Invalid, "the request names %d keys, and %d is the limit", len(keys), MaxKeys)
	}
	for _, key := range keys {
		switch {
		case key == "":
			return fault.New(fault.Invalid, "a key is empty; leave all keys out to get everything")
		case len(key) > MaxKey:
			return fault.New(fault.Invalid, "a key has %d bytes, and %d is the limit", len(key), MaxKey)
		case !utf8.ValidString(key) || strings.ContainsRune(key, 0):
			return fault.New(fault.Invalid, "a key is not a text")
		}
	}
	return nil
}
