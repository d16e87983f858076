package secrets_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// drawer gives out its own map, which a caller must not change.
type drawer struct {
	all map[string]map[string]string
	err error
}

func (d drawer) Get(_ context.Context, key string, _ map[string]string) (map[string]string, error) {
	if d.err != nil {
		return nil, d.err
	}
	if v, ok := d.all[key]; ok {
		return v, nil
	}
	return nil, fault.New(fault.NotFound, "no secret")
}

func (d drawer) Bulk(context.Context, map[string]string) (map[string]map[string]string, error) {
	return d.all, d.err
}

func (d drawer) Close(context.Context) error { return nil }

type noOptions struct{}

func open(t *testing.T, d secrets.Driver, scopes []config.SecretScope, items ...config.Item) *secrets.Store {
	t.Helper()
	def := secrets.Define("drawer", component.About{}, func(context.Context, component.Env, noOptions) (secrets.Driver, error) { return d, nil })
	s, err := secrets.New(def, component.Env{Name: "vault"}, config.Component{Name: "vault", Type: "secretstores.drawer", Metadata: items}, scopes)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Instance().Close(context.WithoutCancel(t.Context())) })
	return s
}

func three() drawer {
	return drawer{all: map[string]map[string]string{"a": {"a": "1"}, "b": {"b": "2"}, "c": {"c": "3"}}}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		scopes []config.SecretScope
		want   string // the keys that may be read
	}{
		"no scopes":                   {nil, "abc"},
		"of another store":            {[]config.SecretScope{{Store: "other", DefaultAccess: "deny"}}, "abc"},
		"deny by default":             {[]config.SecretScope{{Store: "vault", DefaultAccess: "deny"}}, ""},
		"deny list":                   {[]config.SecretScope{{Store: "vault", DefaultAccess: "allow", Denied: []string{"b"}}}, "ac"},
		"allow list":                  {[]config.SecretScope{{Store: "vault", DefaultAccess: "deny", Allowed: []string{"b"}}}, "b"},
		"an allow list is all":        {[]config.SecretScope{{Store: "vault", DefaultAccess: "allow", Allowed: []string{"b"}}}, "b"},
		"allow wins over deny":        {[]config.SecretScope{{Store: "vault", Allowed: []string{"b"}, Denied: []string{"b"}}}, "b"},
		"the last of one name counts": {[]config.SecretScope{{Store: "vault", DefaultAccess: "deny"}, {Store: "vault", Denied: []string{"a"}}}, "bc"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, three(), row.scopes)
			all, err := s.Bulk(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"a", "b", "c"} {
				allowed := strings.Contains(row.want, key)
				got, err := s.Get(t.Context(), key, nil)
				if allowed && got[key] == "" || !allowed && fault.KindOf(err) != fault.Denied {
					t.Errorf("get %s: %v, %v", key, got, err)
				}
				if _, listed := all[key]; listed != allowed {
					t.Errorf("bulk lists %s: %v", key, listed)
				}
				if v, err := s.Resolve(t.Context(), key); err != nil || v[key] == "" {
					t.Errorf("scopes are for apps, but a component got %v, %v", v, err)
				}
			}
		})
	}
}

// manyNames is a store that knows each secret by its number as well.
type manyNames struct{ drawer }

func (manyNames) Names(key string) []string { return []string{"#" + key, strings.TrimPrefix(key, "#")} }

func (m manyNames) Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error) {
	return m.drawer.Get(ctx, strings.ToLower(strings.TrimPrefix(key, "#")), metadata)
}

func TestADenyCountsForAllNamesOfASecret(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		scope   config.SecretScope
		key     string
		allowed bool
	}{
		{config.SecretScope{Denied: []string{"a"}}, "a", false},
		{config.SecretScope{Denied: []string{"a"}}, "A", false},
		{config.SecretScope{Denied: []string{"a"}}, "#a", false},
		{config.SecretScope{Denied: []string{"a"}}, "#A", false},
		{config.SecretScope{Denied: []string{"#a"}}, "a", false},
		{config.SecretScope{Denied: []string{"a"}}, "b", true},
		{config.SecretScope{Allowed: []string{"a"}}, "a", true},
		{config.SecretScope{Allowed: []string{"a"}}, "A", false},
		{config.SecretScope{Allowed: []string{"a"}}, "#a", false},
		{config.SecretScope{DefaultAccess: "deny"}, "#a", false},
	} {
		row.scope.Store = "vault"
		s := open(t, manyNames{three()}, []config.SecretScope{row.scope})
		got, err := s.Get(t.Context(), row.key, nil)
		if row.allowed != (err == nil) || !row.allowed && (fault.KindOf(err) != fault.Denied || len(got) > 0) {
			t.Errorf("%s with %+v: %v, %v", row.key, row.scope, got, err)
		}
	}
}

func TestLimitCountsFromTheNextCall(t *testing.T) {
	t.Parallel()
	s := open(t, three(), nil)
	s.Limit([]config.SecretScope{{Store: "vault", DefaultAccess: "deny"}})
	if _, err := s.Get(t.Context(), "a", nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("got %v", err)
	}
	s.Limit(nil)
	if _, err := s.Get(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
}

func TestBulkLeavesTheDriversMapAlone(t *testing.T) {
	t.Parallel()
	d := three()
	s := open(t, d, []config.SecretScope{{Store: "vault", DefaultAccess: "deny"}})
	if all, err := s.Bulk(t.Context(), nil); err != nil || len(all) != 0 {
		t.Fatalf("got %v, %v", all, err)
	}
	if diff := cmp.Diff(three().all, d.all); diff != "" {
		t.Errorf("the driver's own map changed (-want +got):\n%s", diff)
	}
}

func TestErrorsKeepTheirKindAndNoSecret(t *testing.T) {
	t.Parallel()
	const token = "tok-123456"
	s := open(t, drawer{err: fault.New(fault.Exhausted, "ask https://%s@vault", token)}, nil,
		config.Item{Name: "token", Value: token, Secret: true})
	_, bulkErr := s.Bulk(t.Context(), nil)
	_, getErr := s.Get(t.Context(), "a", nil)
	for _, err := range []error{bulkErr, getErr} {
		if fault.KindOf(err) != fault.Exhausted || strings.Contains(err.Error(), token) || !strings.Contains(err.Error(), "***@vault") {
			t.Errorf("got %v", err)
		}
	}
}

// noticing is a store that notices each time its channel gives something.
type noticing struct {
	drawer
	changes chan struct{}
	ended   chan struct{}
}

func (n noticing) Watch(ctx context.Context, changed func()) {
	defer close(n.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.changes:
			changed()
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	n := noticing{three(), make(chan struct{}), make(chan struct{})}
	s := open(t, n, nil)
	ctx, stop := context.WithCancel(t.Context())
	calls := make(chan struct{}, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(context.Context) { calls <- struct{}{} })
	}()
	<-calls // when it begins
	for range 3 {
		n.changes <- struct{}{}
		<-calls
	}
	stop()
	<-done
	select {
	case <-n.ended:
	default:
		t.Error("Watch returned before that of the driver did")
	}
}

func TestWatchInIntervals(t *testing.T) {
	t.Parallel()
	s := open(t, three(), nil, config.Item{Name: "rotationInterval", Value: "1ms"}) // which counts as a second
	ctx, stop := context.WithCancel(t.Context())
	var times []time.Time
	s.Watch(ctx, func(context.Context) {
		if times = append(times, time.Now()); len(times) == 3 {
			stop()
		}
	})
	if took := times[2].Sub(times[0]); took < 1500*time.Millisecond {
		t.Errorf("two intervals took %s", took)
	}
}

func TestWatchMayBeOff(t *testing.T) {
	t.Parallel()
	s := open(t, three(), nil, config.Item{Name: "rotationInterval", Value: "0"})
	s.Watch(t.Context(), func(context.Context) { t.Error("secrets were read again") })
}
