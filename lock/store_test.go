package lock_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
)

// recorder keeps the keys it is asked for; whoever is called "late" has a store
// that is down.
type recorder struct{ keys []string }

func (r *recorder) note(key, owner string) error {
	r.keys = append(r.keys, key)
	if owner == "late" {
		return fault.New(fault.Unavailable, "ask redis://:s3cr3t-password@host: gone")
	}
	return nil
}

func (r *recorder) TryLock(_ context.Context, key, owner string, _ time.Duration) (lock.Grant, error) {
	return lock.Grant{Held: true, Token: 1}, r.note(key, owner)
}

func (r *recorder) Renew(_ context.Context, key, owner string, _ time.Duration) (lock.Status, error) {
	return lock.Done, r.note(key, owner)
}

func (r *recorder) Unlock(_ context.Context, key, owner string) (lock.Status, error) {
	return lock.Done, r.note(key, owner)
}

func (r *recorder) Close(context.Context) error { return nil }

type noOptions struct {
	Password component.Secret `meta:"password" doc:"A secret."`
}

func open(t *testing.T, app string, items ...config.Item) (*lock.Store, *recorder) {
	t.Helper()
	r := &recorder{}
	def := lock.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (lock.Driver, error) { return r, nil })
	s, err := lock.New(def, component.Env{AppID: app, Name: "Locks"}, config.Component{Name: "Locks", Metadata: items})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Instance().Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s, r
}

// The keys are those of Dapr, so that a sidecar of its own sees the same locks.
func TestKeys(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ strategy, app, want string }{
		{"", "shop", "lock||shop||a"},
		{"appid", "shop", "lock||shop||a"},
		{"AppID", "shop", "lock||shop||a"},
		{"appid", "", "lock||a"},
		{"name", "shop", "lock||Locks||a"},
		{"none", "shop", "lock||a"},
		{"Other", "shop", "lock||other||a"},
	} {
		s, r := open(t, row.app, config.Item{Name: "keyPrefix", Value: row.strategy})
		if _, err := s.TryLock(t.Context(), "a", "ann", time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Renew(t.Context(), "a", "ann", time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unlock(t.Context(), "a", "ann"); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.keys, " "); got != row.want+" "+row.want+" "+row.want {
			t.Errorf("keyPrefix %q of app %q: keys %s, want %s three times", row.strategy, row.app, got, row.want)
		}
	}
	def := lock.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (lock.Driver, error) { return nil, nil })
	_, err := lock.New(def, component.Env{}, config.Component{Metadata: []config.Item{{Name: "keyPrefix", Value: "a||b"}}})
	if err == nil || !strings.Contains(err.Error(), "keyPrefix") {
		t.Errorf("a keyPrefix with the separator: %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	s, r := open(t, "shop")
	long := strings.Repeat("x", lock.MaxName)
	for name, row := range map[string]struct {
		name, owner string
		ok          bool
	}{
		"longest":         {long, long, true},
		"no name":         {"", "ann", false},
		"no owner":        {"a", "", false},
		"too long":        {long + "x", "ann", false},
		"owner too long":  {"a", long + "x", false},
		"another app's":   {"other||a", "ann", false},
		"not UTF-8":       {"\xff", "ann", false},
		"owner not UTF-8": {"a", "\xff", false},
		"zero byte":       {"a\x00", "ann", false},
		"owner with bars": {"a", "ann||bob", true},
	} {
		r.keys = nil
		_, try := s.TryLock(t.Context(), row.name, row.owner, time.Second)
		_, renew := s.Renew(t.Context(), row.name, row.owner, time.Second)
		_, unlock := s.Unlock(t.Context(), row.name, row.owner)
		for _, err := range []error{try, renew, unlock} {
			if (err == nil) != row.ok || err != nil && (fault.KindOf(err) != fault.Invalid || len(err.Error()) > 400) {
				t.Errorf("%s: %v, want success %v", name, err, row.ok)
			}
		}
		if !row.ok && len(r.keys) > 0 {
			t.Errorf("%s: the store was asked for %q", name, r.keys)
		}
	}
}

func TestErrorsKeepTheirKindAndNoSecret(t *testing.T) {
	t.Parallel()
	s, _ := open(t, "shop", config.Item{Name: "password", Value: "s3cr3t-password", Secret: true})
	g, try := s.TryLock(t.Context(), "a", "late", time.Second)
	renewed, renew := s.Renew(t.Context(), "a", "late", time.Second)
	let, unlock := s.Unlock(t.Context(), "a", "late")
	if g.Held || renewed != lock.Failed || let != lock.Failed {
		t.Errorf("with errors: %+v, %d, %d", g, renewed, let)
	}
	for _, err := range []error{try, renew, unlock} {
		if fault.KindOf(err) != fault.Unavailable || err == nil || strings.Contains(err.Error(), "s3cr3t-password") || !strings.Contains(err.Error(), "Locks") {
			t.Errorf("got %v (%v)", err, fault.KindOf(err))
		}
	}
}

// A driver need not keep notes; whoever wants one is told.
func TestNoNotes(t *testing.T) {
	t.Parallel()
	s, _ := open(t, "shop")
	if _, err := s.Note(t.Context(), "a"); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "keeps no notes") {
		t.Error(err)
	}
	if st, err := s.SetNote(t.Context(), "a", "ann", "text"); fault.KindOf(err) != fault.Invalid || st != lock.Failed {
		t.Error(st, err)
	}
}
