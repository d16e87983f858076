package lock

import (
	"context"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Limits of a request, the same for every store.
const (
	// MaxName is the longest name of a lock or an owner, in bytes.
	MaxName = 1 << 10
	// MaxNote is the longest note, in bytes.
	MaxNote = 4 << 10
	// separator stands between the prefix and the name, so neither may hold it.
	separator = "||"
	// apiPrefix is before every key, so that locks may share a server with state.
	apiPrefix = "lock" + separator
)

// Store is one configured lock store: the type everybody but implementations
// uses. Names are the app's own; the store adds the prefix.
type Store struct {
	name     string
	prefix   string // with the separator
	instance *component.Instance[Driver]
	policy   atomic.Pointer[resilience.Policy] // nil: none
	tracer   *trace.Tracer
}

// New makes the store of a component; nothing is opened before Run of its
// instance.
func New(def component.Definition, env component.Env, c config.Component) (*Store, error) {
	o, problems := component.Decode[common](def.Type, c.Metadata, def.Options)
	if errs, _ := problems.Split(false); len(errs) > 0 {
		return nil, fault.As(fault.Invalid, errs)
	}
	prefix, err := prefixOf(o.KeyPrefix, c.Name, env.AppID)
	if err != nil {
		return nil, err
	}
	return &Store{name: c.Name, prefix: prefix, instance: component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout), tracer: env.Tracer}, nil
}

// prefixOf returns what stands before every name of a store. Words count
// without regard to case and a text of its own is lowered, as under Dapr.
func prefixOf(strategy, name, app string) (string, error) {
	switch strategy = strings.ToLower(strings.TrimSpace(strategy)); strategy {
	case "none":
		return apiPrefix, nil
	case "name":
		return apiPrefix + name + separator, nil
	case "appid", "":
		if app == "" {
			return apiPrefix, nil
		}
		return apiPrefix + app + separator, nil
	}
	if strings.Contains(strategy, separator) {
		return "", component.OptionErrorf("keyPrefix", "must not contain %q", separator)
	}
	return apiPrefix + strategy + separator, nil
}

// Instance returns the component's life: opening, state, closing.
func (s *Store) Instance() *component.Instance[Driver] { return s.instance }

// Name returns the component's name.
func (s *Store) Name() string { return s.name }

// SetPolicy makes p the policy of every call from the next one on; nil is none.
func (s *Store) SetPolicy(p *resilience.Policy) { s.policy.Store(p) }

// TryLock tries once to get the lock called name for owner; that somebody else
// has it is no error. Kinds: Invalid for a name or an owner that cannot be one,
// the rest from the store. After an error the lock may be held nonetheless,
// until its expiry.
func (s *Store) TryLock(ctx context.Context, name, owner string, expiry time.Duration) (Grant, error) {
	var g Grant
	err := s.do(ctx, "try_lock", name, owner, func(ctx context.Context, d Driver) (err error) {
		g, err = d.TryLock(ctx, s.prefix+name, owner, expiry)
		return err
	})
	if err != nil {
		return Grant{}, fault.Wrap(err, "try lock %q of %s", short(name), s.name)
	}
	return g, nil
}

// Renew makes the lock that owner holds last as long as expiry from now. Kinds
// as TryLock.
func (s *Store) Renew(ctx context.Context, name, owner string, expiry time.Duration) (Status, error) {
	st := Failed
	err := s.do(ctx, "renew", name, owner, func(ctx context.Context, d Driver) (err error) {
		st, err = d.Renew(ctx, s.prefix+name, owner, expiry)
		return err
	})
	if err != nil {
		return Failed, fault.Wrap(err, "renew lock %q of %s", short(name), s.name)
	}
	return st, nil
}

// Unlock lets go of the lock that owner holds. Kinds as TryLock.
func (s *Store) Unlock(ctx context.Context, name, owner string) (Status, error) {
	st := Failed
	err := s.do(ctx, "unlock", name, owner, func(ctx context.Context, d Driver) (err error) {
		st, err = d.Unlock(ctx, s.prefix+name, owner)
		return err
	})
	if err != nil {
		return Failed, fault.Wrap(err, "unlock %q of %s", short(name), s.name)
	}
	return st, nil
}

// Note returns what owners of the lock have left for the next one, empty when
// there is nothing. Kinds as TryLock, and Invalid for a store that keeps no notes.
func (s *Store) Note(ctx context.Context, name string) (string, error) {
	var text string
	err := s.do(ctx, "get_note", name, "anybody", func(ctx context.Context, d Driver) error {
		n, err := noter(d)
		if err != nil {
			return err
		}
		text, err = n.Note(ctx, s.prefix+name)
		return err
	})
	if err != nil {
		return "", fault.Wrap(err, "read note of lock %q of %s", short(name), s.name)
	}
	return text, nil
}

// SetNote leaves a text with the lock that owner holds; it stays when the lock
// is gone. Kinds as Note.
func (s *Store) SetNote(ctx context.Context, name, owner, text string) (Status, error) {
	st := Failed
	err := s.do(ctx, "set_note", name, owner, func(ctx context.Context, d Driver) error {
		n, err := noter(d)
		if err != nil {
			return err
		}
		if len(text) > MaxNote {
			return fault.New(fault.Invalid, "the note has %d bytes, and %d is the limit", len(text), MaxNote)
		}
		st, err = n.SetNote(ctx, s.prefix+name, owner, text)
		return err
	})
	if err != nil {
		return Failed, fault.Wrap(err, "write note of lock %q of %s", short(name), s.name)
	}
	return st, nil
}

func noter(d Driver) (Noter, error) {
	n, ok := d.(Noter)
	if !ok {
		return nil, fault.New(fault.Invalid, "this lock store keeps no notes")
	}
	return n, nil
}

// do checks the names and runs fn with the driver, under the policy; word is what
// is done.
func (s *Store) do(ctx context.Context, word, name, owner string, fn func(context.Context, Driver) error) (err error) {
	if err := check(name, owner); err != nil {
		return err
	}
	ctx, span := s.tracer.Call(ctx, "lock", s.name, word)
	defer func() { span.Done(err) }()
	try := func(ctx context.Context) error {
		d, err := s.instance.Acquire()
		if err != nil {
			return err
		}
		defer s.instance.Release()
		return s.instance.Hide(fn(ctx, d))
	}
	if p := s.policy.Load(); p != nil {
		return p.Do(ctx, try)
	}
	return try(ctx)
}

// check refuses what could reach another app's locks, or no store can keep.
func check(name, owner string) error {
	for what, text := range map[string]string{"name of the lock": name, "owner": owner} {
		switch {
		case text == "":
			return fault.New(fault.Invalid, "the %s is empty", what)
		case len(text) > MaxName:
			return fault.New(fault.Invalid, "the %s has %d bytes, and %d is the limit", what, len(text), MaxName)
		case strings.ContainsRune(text, 0) || !utf8.ValidString(text):
			return fault.New(fault.Invalid, "the %s is not a text", what)
		}
	}
	if strings.Contains(name, separator) {
		return fault.New(fault.Invalid, "the name of the lock must not contain %q", separator)
	}
	return nil
}

// short is name for an error text.
func short(name string) string {
	const most = 100
	if len(name) > most {
		return strings.ToValidUTF8(name[:most], "") + "..."
	}
	return name
}
