package secrets

import (
	"context"
	"maps"
	"slices"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Store is one configured secret store: the type everybody but implementations
// uses.
type Store struct {
	name     string
	scope    config.SecretScope
	instance *component.Instance[Driver]
}

// New makes the store of a component; nothing is opened before Run of its
// instance. The scopes are those of the Configuration; an entry for this store
// limits what apps may read.
func New(def component.Definition, env component.Env, c config.Component, scopes []config.SecretScope) (*Store, error) {
	s := &Store{name: c.Name, instance: component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout)}
	for _, scope := range scopes {
		if scope.Store == c.Name {
			s.scope = scope
		}
	}
	return s, nil
}

// Instance returns the component's life: opening, state, closing.
func (s *Store) Instance() *component.Instance[Driver] { return s.instance }

// Name returns the component's name.
func (s *Store) Name() string { return s.name }

// Get returns a secret for the app. Kinds: Denied when it is out of scope,
// NotFound when the store has none of that name, Unavailable while opening.
func (s *Store) Get(ctx context.Context, key string) (map[string]string, error) {
	if !s.allows(key) {
		return nil, fault.New(fault.Denied, "get secret %q of %s: access is not allowed by its scope", key, s.name)
	}
	return s.Resolve(ctx, key)
}

// Resolve returns a secret for a component's secretKeyRef; scopes are for apps
// and do not apply.
func (s *Store) Resolve(ctx context.Context, key string) (map[string]string, error) {
	d, err := s.instance.Acquire()
	if err != nil {
		return nil, err
	}
	defer s.instance.Release()
	v, err := d.Get(ctx, key)
	return v, fault.Wrap(err, "get secret %q of %s", key, s.name)
}

// Bulk returns every secret that the app may read.
func (s *Store) Bulk(ctx context.Context) (map[string]map[string]string, error) {
	d, err := s.instance.Acquire()
	if err != nil {
		return nil, err
	}
	defer s.instance.Release()
	all, err := d.Bulk(ctx)
	if err != nil {
		return nil, fault.Wrap(err, "get all secrets of %s", s.name)
	}
	maps.DeleteFunc(all, func(key string, _ map[string]string) bool { return !s.allows(key) })
	return all, nil
}

// allows follows Dapr's order: an allow list shuts everything else out, then
// the deny list, then the default.
func (s *Store) allows(key string) bool {
	if len(s.scope.Allowed) > 0 {
		return slices.Contains(s.scope.Allowed, key)
	}
	if slices.Contains(s.scope.Denied, key) {
		return false
	}
	return s.scope.DefaultAccess != "deny"
}
