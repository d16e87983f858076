package state_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/state"
)

// table is a driver that keeps everything in a map, and fails where it is told
// to.
type table struct {
	items map[string][]byte
	fail  map[string]int // how often changes of a key fail
	tries int
}

func (d *table) Get(_ context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	out := make([]state.Item, len(keys))
	for i, key := range keys {
		v, ok := d.items[key]
		out[i] = state.Item{Found: ok, Value: v}
	}
	return out, nil
}

func (d *table) Apply(_ context.Context, changes []state.Change) error {
	d.tries++
	errs := make([]error, len(changes))
	for i, c := range changes {
		if d.fail[c.Key] > 0 {
			d.fail[c.Key]--
			errs[i] = fault.New(fault.Unavailable, "not now")
			continue
		}
		d.items[c.Key] = append(d.items[c.Key], c.Value...)
	}
	return state.Batch(errs)
}

func (d *table) Close(context.Context) error { return nil }

type noOptions struct{}

func open(t *testing.T, d state.Driver, env component.Env, items ...config.Item) (*state.Store, error) {
	t.Helper()
	def := state.Define("table", component.About{}, func(context.Context, component.Env, noOptions) (state.Driver, error) { return d, nil })
	s, err := state.New(def, env, config.Component{Name: "store", Type: "state.table", Metadata: items})
	if err != nil {
		return nil, err
	}
	if err := s.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Instance().Close(context.WithoutCancel(t.Context())) })
	return s, nil
}

func newTable() *table { return &table{items: map[string][]byte{}, fail: map[string]int{}} }

func TestKeyPrefix(t *testing.T) {
	t.Parallel()
	for strategy, want := range map[string]string{
		"": "shop||k", "appid": "shop||k", "AppID": "shop||k", "name": "store||k", "namespace": "ns.shop||k", "none": "k", "Mine": "mine||k",
	} {
		d := newTable()
		s, err := open(t, d, component.Env{AppID: "shop", Namespace: "ns"}, config.Item{Name: "keyPrefix", Value: strategy})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(t.Context(), []state.Change{{Key: "k", Value: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
		if _, ok := d.items[want]; !ok {
			t.Errorf("%q: stored under %v, want %q", strategy, d.items, want)
		}
	}
	if _, err := open(t, newTable(), component.Env{AppID: "shop"}, config.Item{Name: "keyPrefix", Value: "a||b"}); err == nil {
		t.Error("a prefix with a separator is taken")
	}
}

func TestKeysThatCannotBe(t *testing.T) {
	t.Parallel()
	s, err := open(t, newTable(), component.Env{AppID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "other||k", strings.Repeat("k", state.MaxKey+1)} {
		_, err := s.Get(t.Context(), key, state.Read{})
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("get %.20q: %v", key, err)
		}
		if err := s.Apply(t.Context(), []state.Change{{Key: key}}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("save %.20q: %v", key, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("the error has %d bytes", len(err.Error()))
		}
	}
}

// A retry does again what failed, and only that.
func TestRetryOfPartOfABatch(t *testing.T) {
	t.Parallel()
	d := newTable()
	d.fail["shop||b"] = 2
	s, err := open(t, d, component.Env{AppID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	s.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: time.Millisecond, Limit: 5}})
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	if string(d.items["shop||a"]) != "1" || string(d.items["shop||b"]) != "1" || d.tries != 3 {
		t.Errorf("after %d tries: %q", d.tries, d.items)
	}
}

// refusing fails changes of one key for good, the rest as table does.
type refusing struct{ *table }

func (d refusing) Apply(ctx context.Context, changes []state.Change) error {
	err := d.table.Apply(ctx, changes)
	errs := make([]error, len(changes))
	if be, ok := err.(*state.BatchError); ok {
		copy(errs, be.Errs)
	}
	for i, c := range changes {
		if c.Key == "shop||taken" {
			errs[i] = fault.New(fault.Conflict, "it is taken")
		}
	}
	return state.Batch(errs)
}

// What was refused at the first try is told, although a later one, of the rest,
// succeeds.
func TestRetryForgetsNoRefusal(t *testing.T) {
	t.Parallel()
	d := refusing{newTable()}
	d.fail["shop||a"] = 1
	s, err := open(t, d, component.Env{AppID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	s.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: time.Millisecond, Limit: 5}})
	err = s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}, {Key: "taken", Value: []byte("1")}})
	if fault.KindOf(err) != fault.Conflict {
		t.Errorf("got %v, want the conflict", err)
	}
	if d.tries != 2 {
		t.Errorf("%d tries", d.tries)
	}
}

func TestTimeToLive(t *testing.T) {
	t.Parallel()
	s, err := open(t, newTable(), component.Env{AppID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"x", "-2", "1.5", "99999999999"} {
		err := s.Apply(t.Context(), []state.Change{{Key: "a", Metadata: map[string]string{"TTLInSeconds": text}}})
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"-1", "0", "10", ""} {
		if err := s.Apply(t.Context(), []state.Change{{Key: "a", Metadata: map[string]string{"ttlInSeconds": text}}}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func secret(option, name, value string) config.Item {
	return config.Item{Name: option, Value: value, Secret: true, SecretRef: &config.SecretRef{Name: name, Key: name}}
}

// featured is a table that has, and tells, features of its own.
type featured struct {
	*table
	ttl bool
}

func (d featured) Features() state.Features { return state.Features{TTL: d.ttl} }

func (d featured) Transact(ctx context.Context, changes []state.Change) error {
	return d.Apply(ctx, changes)
}

// TestTimeToLiveThatIsNotKept: a store without one says so, once.
func TestTimeToLiveThatIsNotKept(t *testing.T) {
	t.Parallel()
	for ttl, want := range map[bool]int{false: 1, true: 0} {
		var log strings.Builder
		env := component.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))}
		s, err := open(t, featured{newTable(), ttl}, env)
		if err != nil {
			t.Fatal(err)
		}
		save := func(ttl string) []state.Change {
			return []state.Change{{Key: "k", Value: []byte("1"), Metadata: map[string]string{"ttlInSeconds": ttl}}}
		}
		for _, forever := range []string{"", "0", "-1"} {
			if err := s.Apply(t.Context(), save(forever)); err != nil {
				t.Fatal(err)
			}
		}
		if log.Len() > 0 {
			t.Errorf("without a time to live: %s", log.String())
		}
		for range 2 {
			if err := s.Transact(t.Context(), save("60"), ""); err != nil {
				t.Fatal(err)
			}
			if err := s.Apply(t.Context(), save("60")); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(log.String(), "no time to live"); n != want {
			t.Errorf("a store with time to live %v: told %d times, want %d\n%s", ttl, n, want, log.String())
		}
	}
}

// TestETagsThatAreNotHeeded: a store without them says so, once, and does what
// it is asked for.
func TestETagsThatAreNotHeeded(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	env := component.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	s, err := open(t, featured{newTable(), true}, env)
	if err != nil {
		t.Fatal(err)
	}
	none, old := "", "1"
	if err := s.Apply(t.Context(), []state.Change{{Key: "k", Value: []byte("1"), ETag: &none}}); err != nil || log.Len() > 0 {
		t.Fatalf("without an ETag: %v, %s", err, log.String())
	}
	for _, c := range []state.Change{{FirstWrite: true}, {ETag: &old}, {Delete: true, ETag: &old}} {
		c.Key, c.Value = "k", []byte("2")
		if err := s.Apply(t.Context(), []state.Change{c}); err != nil {
			t.Fatal(err)
		}
		if err := s.Transact(t.Context(), []state.Change{c}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "has no ETags"); n != 1 {
		t.Errorf("told %d times\n%s", n, log.String())
	}
}

func TestEncryption(t *testing.T) {
	t.Parallel()
	key1, key2 := strings.Repeat("01", 32), strings.Repeat("02", 16)
	d := newTable()
	env := component.Env{AppID: "shop"}
	s, err := open(t, d, env, secret("primaryEncryptionKey", "one", key1))
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte(`"hush"`)}}))
	if at := string(d.items["shop||a"]); strings.Contains(at, "hush") || !strings.HasSuffix(at, "||one") {
		t.Errorf("stored as %q", at)
	}
	// The key is changed: the old one still reads.
	s, err = open(t, d, env, secret("primaryEncryptionKey", "two", key2), secret("secondaryEncryptionKey", "one", key1))
	must(err)
	if it, err := s.Get(t.Context(), "a", state.Read{}); err != nil || string(it.Value) != `"hush"` {
		t.Errorf("got %q, %v", it.Value, err)
	}
	must(s.Apply(t.Context(), []state.Change{{Key: "b", Value: []byte("2")}}))
	if at := string(d.items["shop||b"]); !strings.HasSuffix(at, "||two") {
		t.Errorf("stored as %q", at)
	}
	// What cannot be read is an error of that item alone, and says no value.
	d.items["shop||plain"] = []byte(`"plain"`)
	d.items["shop||cut"] = d.items["shop||a"][:9]
	d.items["shop||b"][3] ^= 1
	items, err := s.GetMany(t.Context(), []string{"a", "plain", "cut", "b"}, state.Read{})
	must(err)
	for i, it := range items {
		if (it.Err == nil) != (i == 0) || it.Err != nil && strings.Contains(it.Err.Error(), "plain\"") {
			t.Errorf("item %d: %v", i, it.Err)
		}
	}
}

func TestEncryptionKeysThatCannotBe(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0a", 32)
	for name, items := range map[string][]config.Item{
		"in the file":    {{Name: "primaryEncryptionKey", Value: good}},
		"not hex":        {secret("primaryEncryptionKey", "k", strings.Repeat("x", 64))},
		"short":          {secret("primaryEncryptionKey", "k", "0a0b")},
		"secondary only": {secret("secondaryEncryptionKey", "k", good)},
	} {
		_, err := open(t, newTable(), component.Env{AppID: "shop"}, items...)
		if err == nil || strings.Contains(err.Error(), good) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
