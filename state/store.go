package state

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Limits of a request, the same for every store.
const (
	// MaxKey is the longest key, in bytes, without its prefix.
	MaxKey = 4 << 10
	// defaultParallel is how many keys are read at once where a store must be
	// asked for each and the request does not say.
	defaultParallel = 10
	maxParallel     = 100
)

// Store is one configured state store: the type everybody but implementations
// uses. Keys are the app's own; the store adds the prefix and takes it off.
type Store struct {
	name     string
	prefix   string // with the separator; empty: none
	actors   bool
	outbox   Outbox
	queue    *OutboxQueue // nil: no outbox
	cipher   *cipher      // nil: values are stored as they are
	instance *component.Instance[Driver]
	policy   atomic.Pointer[resilience.Policy] // nil: none
	calls    *telemetry.Calls
	tracer   *trace.Tracer
	log      *slog.Logger
	keeps    sync.Once // it was said that items stay

	unversioned sync.Once // it was said that there are no ETags
}

// New makes the store of a component; nothing is opened before Run of its
// instance.
func New(def component.Definition, env component.Env, c config.Component) (*Store, error) {
	o, problems := component.Decode[common](def.Type, c.Metadata, def.Options)
	if errs, _ := problems.Split(false); len(errs) > 0 {
		return nil, fault.As(fault.Invalid, errs)
	}
	prefix, err := prefixOf(o.KeyPrefix, c.Name, env)
	if err != nil {
		return nil, err
	}
	s := &Store{name: c.Name, prefix: prefix, actors: o.ActorStateStore, log: env.Logger, calls: env.Metrics.Calls(telemetry.State, c.Name), tracer: env.Tracer}
	if s.cipher, err = newCipher(c.Metadata); err != nil {
		return nil, err
	}
	if s.outbox, err = outboxOf(o); err != nil {
		return nil, err
	}
	env.Version = strings.ToLower(c.Version)
	if s.outbox.Enabled() {
		s.queue = newQueue(s)
	}
	s.instance = component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout)
	return s, nil
}

func outboxOf(o common) (Outbox, error) {
	if (o.OutboxPubSub == "") != (o.OutboxTopic == "") {
		return Outbox{}, component.OptionErrorf("outboxPublishTopic", "outboxPublishPubsub and outboxPublishTopic go together")
	}
	return Outbox{PubSub: o.OutboxPubSub, Topic: o.OutboxTopic}, nil
}

// Instance returns the component's life: opening, state, closing.
func (s *Store) Instance() *component.Instance[Driver] { return s.instance }

// Name returns the component's name.
func (s *Store) Name() string { return s.name }

// Actors tells whether this is the store that actors use.
func (s *Store) Actors() bool { return s.actors }

// Outbox says what is published for transactions of this store.
func (s *Store) Outbox() Outbox { return s.outbox }

// Encrypted tells whether values are encrypted.
func (s *Store) Encrypted() bool { return s.cipher != nil }

// SetPolicy makes p the policy of every call from the next one on; nil is none.
func (s *Store) SetPolicy(p *resilience.Policy) { s.policy.Store(p) }

// Capabilities are Dapr's words for what the open store can do; none before.
func (s *Store) Capabilities() []string {
	d, err := s.instance.Acquire()
	if err != nil {
		return nil
	}
	defer s.instance.Release()
	f := features(d)
	var out []string
	add := func(can bool, word string) {
		if can {
			out = append(out, word)
		}
	}
	_, lists := d.(Lister)
	_, queries := d.(Querier)
	add(f.ETag, "ETAG")
	add(transactor(d, f) != nil, "TRANSACTIONAL")
	add(f.TTL, "TTL")
	add(lists, "KEYS_LIKE")
	add(queries, "QUERY_API")
	add(f.ETag && transactor(d, f) != nil, "ACTOR")
	return out
}

// Features returns what the open store can do.
func (s *Store) Features() (Features, error) {
	d, err := s.instance.Acquire()
	if err != nil {
		return Features{}, err
	}
	defer s.instance.Release()
	return features(d), nil
}

func features(d Driver) Features {
	if f, ok := d.(Featured); ok {
		return f.Features()
	}
	return Features{}
}

func transactor(d Driver, f Features) Transactor {
	t, ok := d.(Transactor)
	if !ok || f.NoTransactions {
		return nil
	}
	return t
}

// Get reads one item. Kinds: Invalid for a key that cannot be one, the rest
// from the store.
func (s *Store) Get(ctx context.Context, key string, r Read) (Item, error) {
	items, err := s.GetMany(ctx, []string{key}, r)
	if err != nil {
		return Item{}, err
	}
	if err := items[0].Err; err != nil {
		return Item{}, fault.Wrap(err, "get %q from %s", key, s.name)
	}
	return items[0], nil
}

// GetMany reads many items and returns one for each key, in their order.
func (s *Store) GetMany(ctx context.Context, keys []string, r Read) ([]Item, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	full := make([]string, len(keys))
	for i, key := range keys {
		if err := s.checkKey(key); err != nil {
			return nil, err
		}
		full[i] = s.prefix + key
	}
	if r.Parallel <= 0 {
		r.Parallel = defaultParallel
	}
	r.Parallel = min(r.Parallel, maxParallel)
	word := "bulk_get"
	if len(full) == 1 {
		word = "get"
	}
	began := s.calls.Begin()
	ctx, span := s.call(ctx, word)
	items, err := s.get(ctx, full, r)
	span.Done(err)
	s.calls.Done(word, began, err)
	if err != nil {
		return nil, fault.Wrap(err, "get from %s", s.name)
	}
	for i := range items {
		items[i].Err = s.instance.Hide(items[i].Err)
		s.open(&items[i])
	}
	return items, nil
}

// get reads items under the policy. Of another try are only those that it may
// still bring about.
func (s *Store) get(ctx context.Context, keys []string, r Read) ([]Item, error) {
	var items []Item // nil: no try read any
	left := keys
	at := make([]int, len(keys)) // of left, in keys
	for i := range at {
		at[i] = i
	}
	err := s.do(ctx, func(ctx context.Context, d Driver) error {
		got, err := d.Get(ctx, left, r)
		if err != nil {
			return err
		}
		if items == nil {
			items = make([]Item, len(keys))
		}
		tried := at
		left, at = nil, nil
		for i, it := range got {
			items[tried[i]] = it
			if it.Err != nil && fault.Retriable(it.Err) {
				left, at, err = append(left, keys[tried[i]]), append(at, tried[i]), it.Err
			}
		}
		return err
	})
	if items == nil {
		return nil, err
	}
	return items, nil // what is wrong stands with each
}

// open decrypts an item.
func (s *Store) open(it *Item) {
	if s.cipher == nil || !it.Found || it.Err != nil {
		return
	}
	it.Value, it.Err = s.cipher.open(it.Value)
}

// Apply saves and deletes, each change by itself: when one fails, others may
// be done. The error is a [*BatchError] when it is about some of them. Kinds:
// Conflict when an ETag or FirstWrite did not hold; Invalid for a key, an ETag
// or metadata that cannot be; the rest from the store.
func (s *Store) Apply(ctx context.Context, changes []Change) (err error) {
	ready, err := s.prepare(changes)
	if err != nil || len(ready) == 0 {
		return err
	}
	left := ready
	at := make([]int, len(ready)) // of left, in ready
	for i := range at {
		at[i] = i
	}
	errs := make([]error, len(ready))
	began := s.calls.Begin()
	word := verb(ready)
	ctx, span := s.call(ctx, word)
	defer func() {
		span.Done(err)
		s.calls.Done(word, began, err)
	}()
	err = s.do(ctx, func(ctx context.Context, d Driver) error {
		s.sayUnheeded(features(d), left)
		err := d.Apply(ctx, left)
		left, at = remain(err, left, at, errs)
		return err
	})
	if be := Batch(errs); be != nil { // also when the last try was about others
		err = be
	}
	return fault.Wrap(s.instance.Hide(err), "change %s", s.name)
}

// call begins the span of a call.
func (s *Store) call(ctx context.Context, word string) (context.Context, trace.Span) {
	return s.tracer.Call(ctx, "state", s.name, word)
}

// verb is what metrics call changes that are made by themselves.
func verb(changes []Change) string {
	switch {
	case slices.ContainsFunc(changes, func(c Change) bool { return !c.Delete }):
		return "set"
	case len(changes) > 1:
		return "bulk_delete"
	}
	return "delete"
}

// remain notes how each of the changes tried ended, and returns those that
// another try may still bring about: the ones done must not be done again.
func remain(err error, tried []Change, at []int, errs []error) (left []Change, where []int) {
	be, ok := err.(*BatchError)
	if !ok || len(be.Errs) != len(tried) {
		for _, i := range at {
			errs[i] = err
		}
		return tried, at
	}
	for i, e := range be.Errs {
		errs[at[i]] = e
		if e != nil && fault.Retriable(e) {
			left, where = append(left, tried[i]), append(where, at[i])
		}
	}
	return left, where
}

// Transact carries out all changes, in order, or none. Kinds as Apply; Invalid
// also for more changes than the store takes at once, then the error is
// [TooManyError]; [ErrNoTransactions] when the store has none. With an outbox,
// what is saved is published, and the error nil says that both will be. Trace is
// the trace context of the request, for the events.
func (s *Store) Transact(ctx context.Context, changes []Change, trace string) error {
	var rows []Row
	if s.queue != nil {
		changes, rows = s.queue.rows(changes, trace)
		for i := range rows {
			changes = append(changes, rows[i].change())
		}
		s.queue.begin(rows)
	}
	err := s.transact(ctx, changes)
	if s.queue != nil {
		s.queue.end(rows, err)
	}
	return err
}

func (s *Store) transact(ctx context.Context, changes []Change) (err error) {
	ready, err := s.prepare(changes)
	if err != nil || len(ready) == 0 {
		return err
	}
	began := s.calls.Begin()
	ctx, span := s.call(ctx, "transaction")
	defer func() {
		span.Done(err)
		s.calls.Done("transaction", began, err)
	}()
	err = s.do(ctx, func(ctx context.Context, d Driver) error {
		f := features(d)
		t := transactor(d, f)
		_, lists := d.(Lister)
		switch {
		case t == nil:
			return ErrNoTransactions
		case s.queue != nil && !lists:
			return fault.New(fault.Invalid, "the store cannot have an outbox, because it cannot list its keys")
		case f.MaxChanges > 0 && len(ready) > f.MaxChanges:
			return &TooManyError{Changes: len(ready), Most: f.MaxChanges}
		}
		s.sayUnheeded(f, ready)
		return t.Transact(ctx, ready)
	})
	return fault.Wrap(s.instance.Hide(err), "transaction in %s", s.name)
}

// prepare checks changes and makes them what the driver gets.
func (s *Store) prepare(changes []Change) ([]Change, error) {
	out := make([]Change, len(changes))
	for i, c := range changes {
		if err := s.checkKey(c.Key); err != nil {
			return nil, err
		}
		c.Key = s.prefix + c.Key
		if c.ETag != nil && *c.ETag == "" {
			c.ETag = nil // SDKs send one that they do not have
		}
		if c.TTL == 0 {
			ttl, err := ttlOf(c.Metadata)
			if err != nil {
				return nil, err
			}
			c.TTL = ttl
		}
		if s.cipher != nil && !c.Delete {
			sealed, err := s.cipher.seal(c.Value)
			if err != nil {
				return nil, err
			}
			c.Value, c.Binary = sealed, true
		}
		out[i] = c
	}
	return out, nil
}

// sayUnheeded tells, once each, of what changes ask for and the store does not
// heed, as under Dapr: items stay after their time to live, and are written
// whoever wrote them before.
func (s *Store) sayUnheeded(f Features, changes []Change) {
	if s.log == nil {
		return
	}
	if !f.TTL && slices.ContainsFunc(changes, func(c Change) bool { return c.TTL > 0 && !c.Delete }) {
		s.keeps.Do(func() {
			s.log.Warn("The state store has no time to live: what is saved with ttlInSeconds stays until it is deleted", "store", s.name)
		})
	}
	if !f.ETag && slices.ContainsFunc(changes, func(c Change) bool { return c.ETag != nil || c.FirstWrite }) {
		s.unversioned.Do(func() {
			s.log.Warn("The state store has no ETags: an ETag and first-write have no effect, the last change wins; use a store with ETags where writers meet", "store", s.name)
		})
	}
}

// do runs fn with the driver, under the policy.
func (s *Store) do(ctx context.Context, fn func(context.Context, Driver) error) error {
	try := func(ctx context.Context) error {
		d, err := s.instance.Acquire()
		if err != nil {
			return err
		}
		defer s.instance.Release()
		return fn(ctx, d)
	}
	if p := s.policy.Load(); p != nil {
		return p.Do(ctx, try)
	}
	return try(ctx)
}

// Keys lists keys of this app that begin with prefix; see [Lister]. Kind
// Invalid when the store cannot list.
func (s *Store) Keys(ctx context.Context, prefix, token string, limit int) (keys []string, next string, err error) {
	if strings.Contains(prefix, separator) {
		return nil, "", illegal(prefix)
	}
	err = s.do(ctx, func(ctx context.Context, d Driver) (err error) {
		l, ok := d.(Lister)
		if !ok {
			return ErrNoList
		}
		keys, next, err = l.Keys(ctx, s.prefix+prefix, token, limit)
		return err
	})
	for i, key := range keys {
		keys[i] = key[len(s.prefix):]
	}
	return keys, next, fault.Wrap(s.instance.Hide(err), "list keys of %s", s.name)
}

// Whole rounds a time to live up to whole seconds, which is what stores keep.
func Whole(ttl time.Duration) time.Duration {
	return (ttl + time.Second - 1).Truncate(time.Second)
}
