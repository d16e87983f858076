package secrets

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Store is one configured secret store: the type everybody but implementations
// uses.
type Store struct {
	name     string
	rotation time.Duration                      // zero: secrets are taken never to change
	scope    atomic.Pointer[config.SecretScope] // nil: no limit
	instance *component.Instance[Driver]
	calls    *telemetry.Calls
	tracer   *trace.Tracer
}

// New makes the store of a component; nothing is opened before Run of its
// instance. The scopes are those of the Configuration; an entry for this store
// limits what apps may read.
func New(def component.Definition, env component.Env, c config.Component, scopes []config.SecretScope) (*Store, error) {
	o, problems := component.Decode[common](def.Type, c.Metadata, def.Options)
	if errs, _ := problems.Split(false); len(errs) > 0 {
		return nil, fault.As(fault.Invalid, errs)
	}
	if o.Rotation > 0 {
		o.Rotation = max(o.Rotation, minRotation)
	}
	s := &Store{name: c.Name, rotation: o.Rotation, instance: component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout), calls: env.Metrics.Calls(telemetry.Secret, c.Name), tracer: env.Tracer}
	s.Limit(scopes)
	return s, nil
}

// Limit makes the scopes those of a new Configuration, from the next call on.
func (s *Store) Limit(scopes []config.SecretScope) {
	var mine *config.SecretScope
	for i := range scopes {
		if scopes[i].Store == s.name {
			mine = &scopes[i]
		}
	}
	s.scope.Store(mine)
}

// Instance returns the component's life: opening, state, closing.
func (s *Store) Instance() *component.Instance[Driver] { return s.instance }

// Name returns the component's name.
func (s *Store) Name() string { return s.name }

// Get returns a secret for the app. Kinds: Denied when it is out of scope,
// NotFound when the store has none of that name, Unavailable while opening. The
// metadata of the request is the driver's.
func (s *Store) Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error) {
	d, err := s.instance.Acquire()
	if err != nil {
		return nil, err
	}
	defer s.instance.Release()
	if !s.allows(d, key) {
		return nil, fault.New(fault.Denied, "get secret %q of %s: access is not allowed by its scope", key, s.name)
	}
	return s.read(ctx, d, key, metadata)
}

// Resolve returns a secret for a component's secretKeyRef; scopes are for apps
// and do not apply.
func (s *Store) Resolve(ctx context.Context, key string) (map[string]string, error) {
	d, err := s.instance.Acquire()
	if err != nil {
		return nil, err
	}
	defer s.instance.Release()
	return s.read(ctx, d, key, nil)
}

func (s *Store) read(ctx context.Context, d Driver, key string, metadata map[string]string) (map[string]string, error) {
	began := s.calls.Begin()
	ctx, span := s.tracer.Call(ctx, "secrets", s.name, "get")
	v, err := d.Get(ctx, key, metadata)
	span.Done(err)
	s.calls.Done("get", began, err)
	return v, fault.Wrap(s.instance.Hide(err), "get secret %q of %s", key, s.name)
}

// Watch calls changed whenever secrets may be others than before: when it
// begins, when the driver noticed something, and in intervals. There is one call
// at a time. It returns when ctx ends, or at once when the store is not open or
// secrets are not to be read again.
func (s *Store) Watch(ctx context.Context, changed func(context.Context)) {
	d, err := s.instance.Acquire()
	if err != nil || s.rotation == 0 {
		if err == nil {
			s.instance.Release()
		}
		return
	}
	defer s.instance.Release()
	noticed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	if w, ok := d.(Watcher); ok {
		watching.Go(func() {
			w.Watch(ctx, func() {
				select {
				case noticed <- struct{}{}:
				default:
				}
			})
		})
	}
	for {
		changed(ctx)
		// Not all processes at once.
		timer := time.NewTimer(s.rotation - rand.N(s.rotation/10))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-noticed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Bulk returns every secret that the app may read.
func (s *Store) Bulk(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	d, err := s.instance.Acquire()
	if err != nil {
		return nil, err
	}
	defer s.instance.Release()
	ctx, span := s.tracer.Call(ctx, "secrets", s.name, "bulk_get")
	all, err := d.Bulk(ctx, metadata)
	span.Done(err)
	if err != nil {
		return nil, fault.Wrap(s.instance.Hide(err), "get all secrets of %s", s.name)
	}
	mine := make(map[string]map[string]string, len(all)) // the driver may keep its own
	for key, pairs := range all {
		if s.allows(d, key) {
			mine[key] = pairs
		}
	}
	return mine, nil
}

// allows follows Dapr's order: an allow list shuts everything else out, then
// the deny list, then the default. What is denied is so in upper and lower case,
// since some stores do not tell them apart.
func (s *Store) allows(d Driver, key string) bool {
	scope := s.scope.Load()
	switch {
	case scope == nil:
		return true
	case len(scope.Allowed) > 0:
		return slices.Contains(scope.Allowed, key)
	case scope.DefaultAccess == "deny":
		return false
	}
	names := []string{key}
	if n, ok := d.(Namer); ok {
		names = append(names, n.Names(key)...)
	}
	return !slices.ContainsFunc(scope.Denied, func(denied string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, denied) })
	})
}
