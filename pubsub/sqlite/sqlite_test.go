package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// openAt opens the component on a file, as a process of its own would.
func openAt(t testing.TB, path string, items ...config.Item) *driver {
	t.Helper()
	items = append(items, config.Item{Name: "connectionString", Value: path})
	d, err := Component.Open(t.Context(), component.Env{}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(*driver)
}

func fresh(t testing.TB, items ...config.Item) *driver {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "bus.db"), items...)
}

func option(name, value string) config.Item { return config.Item{Name: name, Value: value} }

func publish(t testing.TB, d *driver, ms ...pubsub.Message) {
	t.Helper()
	if err := d.Publish(t.Context(), "t", ms); err != nil {
		t.Fatal(err)
	}
}

func text(key, body string) pubsub.Message { return pubsub.Message{Key: key, Data: []byte(body)} }

// watcher is a subscription of group g to topic t.
type watcher struct {
	got  chan *cloudevents.Delivery
	done chan error
	stop context.CancelFunc
}

func watch(t testing.TB, d *driver) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{got: make(chan *cloudevents.Delivery, 64), done: make(chan error, 1), stop: cancel}
	go func() {
		w.done <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(ctx context.Context, x *cloudevents.Delivery) error {
			select {
			case w.got <- x:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(cancel)
	return w
}

func (w *watcher) next(t testing.TB) *cloudevents.Delivery {
	t.Helper()
	select {
	case x := <-w.got:
		return x
	case err := <-w.done:
		t.Fatalf("subscribe returned %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("no delivery")
	}
	return nil
}

func (w *watcher) want(t testing.TB, body string) *cloudevents.Delivery {
	t.Helper()
	x := w.next(t)
	if string(x.Body) != body {
		t.Fatalf("received %q, want %q", x.Body, body)
	}
	return x
}

// number reads one number from the file.
func number(t testing.TB, d *driver, query string) (n int64) {
	t.Helper()
	if err := d.b.db.Read().QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// group returns the group g of topic t.
func (d *driver) group() *queue {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	return d.b.queues[queueName{"t", "g"}]
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	last := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-last:
			t.Fatalf("%s: not in time", what)
		}
	}
}

func TestConform(t *testing.T) {
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		t.Helper()
		return fresh(t)
	}, conform.PubSubSetup{
		KeepsEarly: true,
		Reopen: func(t *testing.T, closed pubsub.Driver) pubsub.Driver {
			t.Helper()
			return openAt(t, closed.(*driver).b.db.Path())
		},
	})
}

func TestWatermillSuite(t *testing.T) {
	t.Parallel()
	conform.Watermill(t, func(t *testing.T) pubsub.Driver {
		t.Helper()
		return fresh(t)
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, option, value, err string }{
		{"no backlog", "maxBacklog", "0", "must be at least 1"},
		{"short lease", "redeliverInterval", "10ms", "must be at least 1s"},
		{"short clean-up", "cleanupInterval", "0", "must be at least 1s"},
		{"no timeout", "timeout", "0", "must be at least 1s"},
		{"negative retention", "retention", "-1s", "not negative"},
		{"negative busy", "busyTimeout", "-1s", "not negative"},
		{"dapr's option", "disableWAL", "true", ""},
		{"good", "redeliverInterval", "10s", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			errs, _ := Component.Check([]config.Item{option(r.option, r.value)}).Split(false)
			got := fmt.Sprint(errs)
			if (r.err == "") != (len(errs) == 0) || !strings.Contains(got, r.err) {
				t.Errorf("problems %s, want %q", got, r.err)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for _, r := range []struct{ path, err string }{
		{":memory:", "in-memory database is lost"},
		{t.TempDir(), "it is a folder"},
	} {
		_, err := Component.Open(t.Context(), component.Env{}, []config.Item{option("connectionString", r.path)})
		if err == nil || fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), r.err) {
			t.Errorf("open %s: %v, want %q", r.path, err, r.err)
		}
	}
}

func TestComponentsShareAFile(t *testing.T) {
	t.Parallel()
	env := component.Env{DataDir: t.TempDir(), Shared: &component.Shared{}}
	var ds []*driver
	for range 2 {
		d, err := Component.Open(t.Context(), env, nil)
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d.(*driver))
	}
	old, fresh := ds[0], ds[1]
	if old.b != fresh.b {
		t.Fatal("one file has two brokers")
	}
	publish(t, old, text("k", "1"), text("k", "2"))
	x := watch(t, old).want(t, "1")
	until(t, "it is counted", func() bool { return number(t, old, "SELECT max(attempt) FROM pubsub_pending") == 1 })
	// The new one is open before the old one closes, as in a reload.
	if err := old.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := watch(t, fresh)
	again := w.want(t, "1")
	if again.Attempt != 1 {
		t.Errorf("attempt %d of what was given back", again.Attempt)
	}
	x.Settle(cloudevents.Acked()) // too late
	again.Settle(cloudevents.Acked())
	w.want(t, "2").Settle(cloudevents.Acked())
	if err := fresh.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	for _, m := range []map[string]string{nil, {"": ""}, {"a": "b", "c": ""}, {"\xff\x00": strings.Repeat("x", 70000)}} {
		got, err := decodeMetadata(encodeMetadata(m))
		if d := cmp.Diff(m, got); d != "" || err != nil {
			t.Errorf("%v: %s", err, d)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeMetadata(map[string]string{"a": "b", "long": strings.Repeat("x", 300)}))
	f.Add([]byte{1, 'a', 5, 'b'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMetadata(b)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeMetadata(encodeMetadata(m))
		if d := cmp.Diff(m, again); d != "" || err != nil {
			t.Fatalf("%v: %s", err, d)
		}
	})
}

// TestQueryPlans keeps the queries that readers run from looking at more than
// they return.
func TestQueryPlans(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	for _, r := range queries(&reads{}) {
		rows, err := d.b.db.Read().Query("EXPLAIN QUERY PLAN "+r.query, 1, 2, 3, 4)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id, parent, x int
			var detail string
			if err := rows.Scan(&id, &parent, &x, &detail); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(detail, "SCAN") || strings.Contains(detail, "TEMP B-TREE") {
				t.Errorf("%s: %s", r.query, detail)
			}
		}
	}
}
