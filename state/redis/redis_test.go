package redis

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
)

// suite runs what every store promises on a server.
func suite(t *testing.T, addr string) {
	t.Helper()
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"redisHost": addr} },
		Wrong: map[string]map[string]string{
			"ttlInSeconds": {"ttlInSeconds": "soon"}, "redisHost": {"redisHost": "a:1", "redisPort": "2"},
		},
	})
}

// fake is a server whose keys expire, which those of miniredis do only when it is
// told how much time has passed.
func fake(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.RunT(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		last := time.Now()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				now := time.Now()
				m.FastForward(now.Sub(last))
				last = now
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return m
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, fake(t).Addr())
}

// opened returns a store with options beside the address.
func opened(t *testing.T, addr string, more ...string) *store {
	t.Helper()
	items := []config.Item{{Name: "redisHost", Value: addr}}
	for i := 0; i < len(more); i += 2 {
		items = append(items, config.Item{Name: more[i], Value: more[i+1]})
	}
	d, err := Component.Open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d.(*store)
}

// get reads an item that can be read.
func get(t *testing.T, s *store, key string) state.Item {
	t.Helper()
	items, err := s.Get(t.Context(), []string{key}, state.Read{})
	if err != nil || items[0].Err != nil {
		t.Fatalf("get %s: %v, %+v", key, err, items)
	}
	return items[0]
}

// TestDefaultTTL: what does not say is kept as long as the component says, and an
// item that says for ever stays.
func TestDefaultTTL(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	s := opened(t, m.Addr(), "ttlInSeconds", "60")
	err := s.Apply(t.Context(), []state.Change{
		{Key: "default", Value: []byte("1")},
		{Key: "own", Value: []byte("1"), TTL: time.Hour},
		{Key: "ever", Value: []byte("1"), TTL: -1},
		{Key: "kept", Value: []byte("1")},
		{Key: "kept", Value: []byte("1"), TTL: -1},
		{Key: "short", Value: []byte("1"), TTL: 1500 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]time.Duration{"default": time.Minute, "own": time.Hour, "ever": 0, "kept": 0, "short": 2 * time.Second} {
		if got := m.TTL(key); got != want {
			t.Errorf("%s is kept for %v, want %v", key, got, want)
		}
	}
	if it := get(t, s, "own"); time.Until(it.Expires) < 59*time.Minute {
		t.Errorf("own expires at %v", it.Expires)
	}
}

// TestVersionsAreNotUsedAgain: after a delete, the old ETag does not fit what was
// saved since.
func TestVersionsAreNotUsedAgain(t *testing.T) {
	t.Parallel()
	s := opened(t, miniredis.RunT(t).Addr())
	save := state.Change{Key: "a", Value: []byte("1")}
	if err := s.Apply(t.Context(), []state.Change{save}); err != nil {
		t.Fatal(err)
	}
	old := get(t, s, "a").ETag
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), []state.Change{save}); err != nil {
		t.Fatal(err)
	}
	save.ETag = &old
	if err := s.Apply(t.Context(), []state.Change{save}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("save with the ETag of a deleted item: %v", err)
	}
	bad := "x"
	save.ETag = &bad
	for _, err := range []error{s.Apply(t.Context(), []state.Change{save}), s.Transact(t.Context(), []state.Change{save})} {
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("malformed ETag: %v", err)
		}
	}
}

// TestOtherValues: a string is read as it is and replaced; a list is neither.
func TestOtherValues(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	s := opened(t, m.Addr())
	_ = m.Set("string", "plain")
	_, _ = m.Push("list", "x")
	if it := get(t, s, "string"); string(it.Value) != "plain" || it.ETag != "" {
		t.Errorf("string: %+v", it)
	}
	items, err := s.Get(t.Context(), []string{"list", "string"}, state.Read{})
	if err != nil || fault.KindOf(items[0].Err) != fault.Invalid || string(items[1].Value) != "plain" {
		t.Errorf("list: %+v, %v", items, err)
	}
	first := state.Change{Key: "string", Value: []byte("1"), FirstWrite: true}
	if err := s.Apply(t.Context(), []state.Change{first}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("first write of a string: %v", err)
	}
	if err := s.Apply(t.Context(), []state.Change{{Key: "string", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	if it := get(t, s, "string"); string(it.Value) != "1" || it.ETag == "" {
		t.Errorf("replaced: %+v", it)
	}
}

// TestCluster: a batch goes to all slots, a transaction to one only. The fake is
// a cluster of one server.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := opened(t, miniredis.RunT(t).Addr(), "redisType", "cluster")
	var changes []state.Change
	var keys []string
	for _, key := range []string{"a", "b", "c", "{x}1", "{x}2"} {
		keys = append(keys, key)
		changes = append(changes, state.Change{Key: key, Value: []byte(key)})
	}
	if err := s.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	items, err := s.Get(t.Context(), keys, state.Read{})
	if err != nil {
		t.Fatal(err)
	}
	for i, it := range items {
		if string(it.Value) != keys[i] {
			t.Errorf("%s: %+v", keys[i], it)
		}
	}
	if err := s.Transact(t.Context(), changes[:2]); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "one slot") {
		t.Errorf("transaction over two slots: %v", err)
	}
	if err := s.Transact(t.Context(), changes[3:]); err != nil {
		t.Errorf("transaction in one slot: %v", err)
	}
	if _, _, err := s.Keys(t.Context(), "a", "", 10); fault.KindOf(err) != fault.Invalid {
		t.Errorf("keys: %v", err)
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	m.RequireAuth("geheim")
	items := []config.Item{{Name: "redisHost", Value: m.Addr()}, {Name: "redisPassword", Value: "verkehrt"}}
	_, err := Component.Open(t.Context(), component.Env{}, items)
	if fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "verkehrt") {
		t.Errorf("open: %v (%v)", err, fault.KindOf(err))
	}
}
