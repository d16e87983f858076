package jetstream

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"

	js "github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

func TestMain(m *testing.M) { os.Exit(natsserver.Main(m)) }

// setup is what the suite needs on a server.
func setup(url string) conform.StateSetup {
	return conform.StateSetup{
		Options: func(t *testing.T) map[string]string {
			return map[string]string{"natsURL": url, "bucket": conform.Unique(t)}
		},
		Wrong: map[string]map[string]string{
			"bucket":   {"bucket": "a.b"},
			"replicas": {"replicas": "0"},
			"jwt":      {"jwt": "x"},
		},
	}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.State(t, Component, setup(natsserver.Start(t, natsserver.Options{}).URL()))
}

func tried(t *testing.T, pairs ...string) (*store, error) {
	t.Helper()
	var items []config.Item
	for i := 0; i+1 < len(pairs); i += 2 {
		items = append(items, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	d, err := Component.Open(t.Context(), component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*store), nil
}

// layout writes as Dapr does and reads with the component, and the other way
// round.
func layout(t *testing.T, url string) {
	t.Helper()
	ctx := t.Context()
	s, err := tried(t, "natsURL", url, "bucket", conform.Unique(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.kv.Put(ctx, "app.theirs/1", []byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, []string{"app||theirs/1"}, state.Read{Parallel: 1})
	if err != nil || string(got[0].Value) != `{"a":1}` {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := s.Apply(ctx, []state.Change{{Key: "app||ours.1", Value: []byte(`{"a":1}`)}}); err != nil {
		t.Fatal(err)
	}
	if e, err := s.kv.Get(ctx, "app.ours.1"); err != nil || string(e.Value()) != `{"a":1}` {
		t.Errorf("wrote %+v, %v", e, err)
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	layout(t, natsserver.Start(t, natsserver.Options{}).URL())
}

func TestBucketThatIsNotThere(t *testing.T) {
	t.Parallel()
	url := natsserver.Start(t, natsserver.Options{}).URL()
	if _, err := tried(t, "natsURL", url, "bucket", "none", "createBucket", "false"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("open: %v, want kind not found", err)
	}
	s, err := tried(t, "natsURL", url, "bucket", "made")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.conn.JetStream().DeleteKeyValue(t.Context(), "made"); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}); err == nil {
		t.Error("a save into a bucket that was deleted succeeds")
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	s, err := tried(t, "natsURL", natsserver.Start(t, natsserver.Options{MaxPayload: 4096}).URL(), "bucket", "b")
	if err != nil {
		t.Fatal(err)
	}
	err = s.Apply(t.Context(), []state.Change{{Key: "a", Value: make([]byte, 8192)}})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("save of 8 KiB with a limit of 4: %v, want kind invalid", err)
	}
}

func TestStored(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"app||key":      "app.key",
		"app||k.e/y=1":  "app.k.e/y=1",
		"app||a b":      "=app=7c=7ca=20b",
		"a.b||c":        "=a=2eb=7c=7cc",
		"a||b.c":        "a.b.c",
		"app||.":        "=app=7c=7c=2e",
		"app||a..b":     "=app=7c=7ca=2e=2eb",
		"=a||b":         "==3da=7c=7cb",
		"app||a||b":     "=app=7c=7ca=7c=7cb",
		"||a":           "==7c=7ca",
		"":              "=",
		"app||é":        "=app=7c=7c=c3=a9",
		"ns.app||key/*": "=ns=2eapp=7c=7ckey/=2a",
	} {
		if got := stored(key); got != want {
			t.Errorf("%q is stored as %q, want %q", key, got, want)
		}
	}
	if got := stored("app||" + strings.Repeat("é", 2000)); len(got) > 100 || got[:9] != "==sha256." {
		t.Errorf("a long key is stored as %q", got)
	}
}

// TestStoredIsUnique: different keys with a prefix, and with none, are different
// keys in the bucket, all of which JetStream takes.
func TestStoredIsUnique(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringMatching(`[a.=| 0-9A-Fé]{0,6}`)
		keys := make([]string, 2)
		for i := range keys {
			keys[i] = part.Draw(t, "prefix") + "||" + part.Draw(t, "key")
		}
		a, b := stored(keys[0]), stored(keys[1])
		if (a == b) != (keys[0] == keys[1]) {
			t.Fatalf("%q and %q are stored as %q and %q", keys[0], keys[1], a, b)
		}
		if a[0] == '.' || a[len(a)-1] == '.' || strings.Contains(a, "..") || strings.ContainsAny(a, "| é*>") {
			t.Fatalf("%q is stored as %q, which JetStream does not take", keys[0], a)
		}
	})
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, code := range []js.ErrorCode{js.JSErrCodeStreamWrongLastSequence, js.JSErrCodeStreamWrongLastSequenceConstant} {
		if err := classify(&js.APIError{Code: 400, ErrorCode: code}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("code %d: %v, want kind conflict", code, err)
		}
	}
}
