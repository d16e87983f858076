//go:build services

package cassandra

import (
	"bytes"
	"context"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	addr := services.Need(t, "cassandra")
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string {
			return map[string]string{"hosts": addr, "keyspace": "conform", "timeout": "30s"}
		},
		Wrong: map[string]map[string]string{
			"hosts":             {"hosts": ""},
			"port":              {"port": "0"},
			"protoVersion":      {"protoVersion": "2"},
			"consistency":       {"consistency": "Most"},
			"keyspace":          {"keyspace": "a.b"},
			"table":             {"table": "1a"},
			"replicationFactor": {"replicationFactor": "0"},
			"timeout":           {"timeout": "0"},
		},
	})
}

// opened opens the component on a server, in a table of its own.
func opened(t *testing.T, addr string, pairs ...string) *store {
	t.Helper()
	env := component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(t.Context(), env, items(append([]string{"hosts", addr, "keyspace", "tests", "timeout", "30s"}, pairs...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(*store)
}

// TestLayout writes as Dapr does and reads with the component, and the other way
// round, in a table made by Dapr's words.
func TestLayout(t *testing.T) {
	s, ctx := opened(t, services.Need(t, "cassandra"), "table", "Theirs"), t.Context()
	for _, text := range []string{
		"DROP TABLE tests.theirs",
		"CREATE TABLE IF NOT EXISTS tests.theirs (key text, value blob, PRIMARY KEY (key))",
		`INSERT INTO tests.theirs (key, value) VALUES ('app||theirs', textAsBlob('{"a":1}')) USING TTL 1000`,
	} {
		if err := s.session.Query(text).ExecContext(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s = opened(t, services.Need(t, "cassandra"), "table", "Theirs")
	got, err := s.Get(ctx, []string{"app||theirs"}, state.Read{Parallel: 1})
	if err != nil || got[0].Err != nil || string(got[0].Value) != `{"a":1}` || time.Until(got[0].Expires) < 10*time.Minute {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := s.Apply(ctx, []state.Change{{Key: "app||ours", Value: []byte(`{"a":1}`)}}); err != nil {
		t.Fatal(err)
	}
	var value []byte
	if err := s.session.Query("SELECT value FROM tests.theirs WHERE key = 'app||ours'").ScanContext(ctx, &value); err != nil || string(value) != `{"a":1}` {
		t.Errorf("wrote %q, %v", value, err)
	}
}

// TestForEver: a table's own time to live holds, unless a change says for ever.
func TestForEver(t *testing.T) {
	s, ctx := opened(t, services.Need(t, "cassandra"), "table", "defaults"), t.Context()
	if err := s.session.Query("ALTER TABLE tests.defaults WITH default_time_to_live = 1000").ExecContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(ctx, []state.Change{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("1"), TTL: -1}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, []string{"a", "b"}, state.Read{Parallel: 1})
	if err != nil || got[0].Expires.IsZero() || !got[1].Found || !got[1].Expires.IsZero() {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	s := opened(t, services.Need(t, "cassandra"), "consistency", "Any")
	for name, c := range map[string]state.Change{
		"5 MiB":    {Key: "a", Value: make([]byte, 5<<20)},
		"no key":   {Value: []byte("1")},
		"long key": {Key: string(bytes.Repeat([]byte("k"), 70000)), Value: []byte("1")},
		"21 years": {Key: "a", Value: []byte("1"), TTL: 21 * 365 * 24 * time.Hour},
	} {
		if err := s.Apply(t.Context(), []state.Change{c}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want kind invalid", name, err)
		}
	}
	// What may be written at Any may be read too.
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), []string{"a"}, state.Read{Parallel: 1}); err != nil || !got[0].Found {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestServerGoneAndBack(t *testing.T) {
	server := services.Start(t, "cassandra")
	s := opened(t, server.Addr)
	save := []state.Change{{Key: "a", Value: []byte("1")}}
	if err := s.Apply(t.Context(), save); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), save); !fault.Retriable(err) {
		t.Errorf("save without a server: %v, want an error that is tried again", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); ; <-tick.C {
		got, err := s.Get(t.Context(), []string{"a"}, state.Read{Parallel: 1})
		if err == nil && got[0].Found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server is back, and a read still fails: %+v, %v", got, err)
		}
	}
}
