package conform

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
)

// ConfigurationSetup says how to get at a configuration store.
type ConfigurationSetup struct {
	// Options makes working options for a store that is empty, and stays the
	// one that Set and Delete change until the next call.
	Options func(t *testing.T) map[string]string
	// Wrong are options that Check must refuse, as in [BindingSetup].
	Wrong map[string]map[string]string
	// Set and Delete change the store as others do, and have it tell of it.
	Set    func(t *testing.T, key, value, version string)
	Delete func(t *testing.T, key string)
	// Break cuts the connections, calls meanwhile while nothing is heard of the
	// changes it makes, and lets connect again. Nil: there are none to cut.
	Break func(t *testing.T, meanwhile func())
	// Counts tells that the store makes versions by itself, a new one with every
	// change; Set then leaves its version out.
	Counts bool
}

type configurationTest struct {
	ConfigurationSetup
	store *configuration.Store
}

const configurationPatience = 30 * time.Second

// Configuration runs the suite of configuration stores.
func Configuration(t *testing.T, def component.Definition, setup ConfigurationSetup) {
	t.Helper()
	definition(t, def, setup.Options, setup.Wrong)
	for name, run := range map[string]func(*testing.T, *configurationTest){
		"get": configurationGet, "subscribe": configurationSubscribe, "subscribe to all": configurationAll,
		"refused": configurationRefused, "connection lost": configurationLost, "close": configurationClose,
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			var metadata []config.Item
			for k, v := range setup.Options(t) {
				metadata = append(metadata, config.Item{Name: k, Value: v})
			}
			s, err := configuration.New(def, environment(t), config.Component{Name: "settings", Metadata: metadata})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Instance().Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
				defer cancel()
				if err := s.Instance().Close(ctx); err != nil {
					t.Error(err)
				}
			}()
			run(t, &configurationTest{setup, s})
		})
	}
}

func (ct *configurationTest) get(t *testing.T, want map[string]configuration.Item, keys ...string) {
	t.Helper()
	got, err := ct.store.Get(t.Context(), keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got == nil {
		got = map[string]configuration.Item{}
	}
	if diff := cmp.Diff(ct.bare(want), ct.bare(got)); diff != "" {
		t.Errorf("get %q (-want +got)\n%s", keys, diff)
	}
}

// bare leaves empty metadata out, and versions that the suite does not know.
func (ct *configurationTest) bare(items map[string]configuration.Item) map[string]configuration.Item {
	out := map[string]configuration.Item{}
	for key, it := range items {
		if ct.Counts && it.Version != "" {
			it.Version = "some"
		}
		if len(it.Metadata) == 0 {
			it.Metadata = nil
		}
		out[key] = it
	}
	return out
}

type configurationItems = map[string]configuration.Item

func configurationGet(t *testing.T, ct *configurationTest) {
	ct.get(t, configurationItems{})
	ct.get(t, configurationItems{}, "a")
	ct.Set(t, "a", "one", "1")
	ct.Set(t, "b", "two words, é✓", "2")
	ct.Set(t, "c.d/e", `{"json":[1,2]}`, "v3")
	a, b, c := configuration.Item{Value: "one", Version: "1"}, configuration.Item{Value: "two words, é✓", Version: "2"}, configuration.Item{Value: `{"json":[1,2]}`, Version: "v3"}
	ct.get(t, configurationItems{"a": a}, "a")
	ct.get(t, configurationItems{"a": a, "c.d/e": c}, "a", "never", "c.d/e", "a")
	ct.get(t, configurationItems{"a": a, "b": b, "c.d/e": c})
	ct.Set(t, "a", "new", "4")
	ct.get(t, configurationItems{"a": {Value: "new", Version: "4"}}, "a")
	ct.Delete(t, "a")
	ct.get(t, configurationItems{"b": b, "c.d/e": c})
}

// configurationRefused: keys that cannot be are refused, and nothing is read.
func configurationRefused(t *testing.T, ct *configurationTest) {
	many := make([]string, configuration.MaxKeys+1)
	for i := range many {
		many[i] = "k" + strconv.Itoa(i)
	}
	long := make([]byte, configuration.MaxKey+1)
	for i := range long {
		long[i] = 'k'
	}
	for name, keys := range map[string][]string{
		"empty": {"a", ""}, "many": many, "long": {string(long)}, "not UTF-8": {"\xff"}, "zero byte": {"a\x00"},
	} {
		if got, err := ct.store.Get(t.Context(), keys, nil); err == nil || fault.KindOf(err) != fault.Invalid || got != nil {
			t.Errorf("get, %s: %v, %v", name, got, err)
		}
		sub := &configuration.Subscription{Keys: keys, Find: func() (*configuration.Store, error) { return ct.store, nil }}
		if err := sub.Run(t.Context()); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("subscribe, %s: %v", name, err)
		}
	}
}

// heard is a subscriber: what it was told, key by key.
type heard struct {
	t    *testing.T
	ct   *configurationTest
	more chan struct{} // one when there was something

	mu    sync.Mutex
	last  map[string]configuration.Item
	count map[string]int
	fail  int // so many deliveries fail
}

// listen subscribes and returns when changes are heard of.
func (ct *configurationTest) listen(t *testing.T, fail int, keys ...string) (h *heard, stop func()) {
	t.Helper()
	h = &heard{t: t, ct: ct, more: make(chan struct{}, 1), last: configurationItems{}, count: map[string]int{}, fail: fail}
	ready, done := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	sub := &configuration.Subscription{
		Find: func() (*configuration.Store, error) { return ct.store, nil },
		Keys: keys, Logger: slog.New(slog.DiscardHandler),
		Ready:   func() error { close(ready); return nil },
		Deliver: h.deliver,
	}
	go func() { done <- sub.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("subscribe: %v", err)
	case <-time.After(configurationPatience):
		t.Fatal("the subscription does not begin")
	}
	return h, func() {
		t.Helper()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the subscription ended with %v", err)
			}
		case <-time.After(configurationPatience):
			t.Error("the subscription does not end")
		}
	}
}

func (h *heard) deliver(_ context.Context, key string, it configuration.Item) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail > 0 {
		h.fail--
		return errors.New("not now")
	}
	h.last[key] = it
	h.count[key]++
	select {
	case h.more <- struct{}{}:
	default:
	}
	return nil
}

// wait waits until the last word on key is value and version.
func (h *heard) wait(key, value, version string) {
	h.t.Helper()
	last := time.After(configurationPatience)
	for {
		h.mu.Lock()
		it, told := h.last[key]
		h.mu.Unlock()
		known := it.Version == version || h.ct.Counts && (it.Version == "") == (version == "")
		if told && it.Value == value && known {
			return
		}
		select {
		case <-h.more:
		case <-last:
			h.t.Fatalf("%q: told %v %+v, want %q version %q", key, told, it, value, version)
		}
	}
}

func (h *heard) silent(keys ...string) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		if n := h.count[key]; n > 0 {
			h.t.Errorf("told %d times of %q", n, key)
		}
	}
}

func configurationSubscribe(t *testing.T, ct *configurationTest) {
	ct.Set(t, "a", "old", "1")
	ct.Set(t, "same", "as it was", "1")
	h, stop := ct.listen(t, 2, "a", "b", "same")
	other, stopOther := ct.listen(t, 0, "b")
	ct.Set(t, "same", "as it was", "1")
	ct.Set(t, "c", "not asked for", "1")
	ct.Set(t, "a", "new", "2") // its delivery fails twice
	h.wait("a", "new", "2")
	ct.Set(t, "b", "made", "1")
	h.wait("b", "made", "1")
	other.wait("b", "made", "1")
	ct.Delete(t, "a")
	h.wait("a", "", "")
	ct.Set(t, "a", "again", "3")
	h.wait("a", "again", "3")
	h.silent("c")
	if !ct.Counts { // else it is another version
		h.silent("same")
	}
	other.silent("a", "same", "c")
	stopOther()
	ct.Set(t, "b", "more", "2")
	h.wait("b", "more", "2")
	stop()
	other.mu.Lock()
	defer other.mu.Unlock()
	if n := other.count["b"]; n != 1 {
		t.Errorf("who had stopped was told %d times, want once", n)
	}
}

func configurationAll(t *testing.T, ct *configurationTest) {
	ct.Set(t, "a", "old", "1")
	h, stop := ct.listen(t, 0)
	defer stop()
	for i := range 20 {
		ct.Set(t, "k"+strconv.Itoa(i), "v", strconv.Itoa(i))
	}
	for i := range 20 {
		h.wait("k"+strconv.Itoa(i), "v", strconv.Itoa(i))
	}
	ct.Delete(t, "a")
	h.wait("a", "", "")
}

// configurationLost: what changed while nothing could be heard is told later.
func configurationLost(t *testing.T, ct *configurationTest) {
	if ct.Break == nil {
		return
	}
	ct.Set(t, "a", "old", "1")
	ct.Set(t, "b", "old", "1")
	ct.Set(t, "c", "old", "1")
	h, stop := ct.listen(t, 0, "a", "b", "c", "d")
	defer stop()
	ct.Break(t, func() {
		ct.Set(t, "a", "missed", "2")
		ct.Delete(t, "b")
		ct.Set(t, "d", "made", "1")
	})
	h.wait("a", "missed", "2")
	h.wait("b", "", "")
	h.wait("d", "made", "1")
	ct.Set(t, "c", "heard", "2") // and it listens again
	h.wait("c", "heard", "2")
}

// configurationClose: a store that closes ends what watches it.
func configurationClose(t *testing.T, ct *configurationTest) {
	_, stop := ct.listen(t, 0, "a")
	ctx, cancel := context.WithTimeout(t.Context(), configurationPatience)
	defer cancel()
	if err := ct.store.Instance().Close(ctx); err != nil {
		t.Errorf("close with a subscription: %v", err)
	}
	stop()
	if _, err := ct.store.Get(t.Context(), []string{"a"}, nil); err == nil {
		t.Error("get after close has an answer")
	}
}
