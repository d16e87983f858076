package state_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/state/inmemory"
)

// outboxed opens a store with an outbox on a driver.
func outboxed(t *testing.T, d state.Driver) *state.Store {
	t.Helper()
	s, err := open(t, d, component.Env{AppID: "shop"},
		config.Item{Name: "outboxPublishPubsub", Value: "bus"}, config.Item{Name: "outboxPublishTopic", Value: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func memory(t *testing.T) state.Driver {
	t.Helper()
	d, err := inmemory.Component.Open(t.Context(), component.Env{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d.(state.Driver)
}

// reader collects what an outbox emits and settles it.
type reader struct {
	mu      sync.Mutex
	rows    []state.Row
	verdict cloudevents.Outcome
	stop    context.CancelFunc
	done    chan error
}

func read(t *testing.T, s *state.Store, o cloudevents.Outcome) *reader {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &reader{verdict: o, stop: stop, done: make(chan error, 1)}
	go func() {
		r.done <- s.Queue().Run(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
			row, err := state.ReadRow(d.Body)
			if err != nil {
				return err
			}
			r.mu.Lock()
			r.rows = append(r.rows, row)
			r.mu.Unlock()
			if r.verdict.Verdict == cloudevents.Ack {
				if err := s.Queue().Published(ctx, &row); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
			d.Settle(r.verdict)
			return nil
		})
	}()
	t.Cleanup(func() { r.end(t) })
	return r
}

func (r *reader) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	r.done <- nil
}

// data waits for n rows and returns what they hold.
func (r *reader) data(t *testing.T, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		r.mu.Lock()
		var out []string
		for _, row := range r.rows {
			out = append(out, row.Key+"="+string(row.Data))
		}
		r.mu.Unlock()
		if len(out) >= n {
			return out
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows after 20 s, want %d: %q", len(out), n, out)
		}
		wait(t)
	}
}

func wait(t *testing.T) {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-t.Context().Done():
	}
}

// left waits until n rows are in the store.
func left(t *testing.T, s *state.Store, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		keys, _, err := s.Keys(t.Context(), "outbox-", "", 10000)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are left after 20 s, want %d", len(keys), n)
		}
		wait(t)
	}
}

func upsert(key, value string) state.Change { return state.Change{Key: key, Value: []byte(value)} }

func TestOutboxPublishesWhatIsSaved(t *testing.T) {
	t.Parallel()
	s := outboxed(t, memory(t))
	r := read(t, s, cloudevents.Acked())
	projected := upsert("b", `{"public":true}`)
	projected.Metadata = map[string]string{"outbox.projection": "true", "cloudevent.type": "t", "other": "x"}
	changes := []state.Change{upsert("a", `1`), upsert("b", `{"secret":true}`), projected, {Key: "c", Delete: true}}
	if err := s.Transact(t.Context(), changes, "00-1-2-01"); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(r.data(t, 2)), `[a=1 b={"public":true}]`; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
	row := r.rows[1]
	if row.ContentType != "application/json" || row.Trace != "00-1-2-01" || len(row.Metadata) != 1 || row.Metadata["cloudevent.type"] != "t" || !strings.HasPrefix(row.ID, "outbox-") {
		t.Errorf("row %+v", row)
	}
	if it, err := s.Get(t.Context(), "b", state.Read{}); err != nil || string(it.Value) != `{"secret":true}` {
		t.Errorf("saved %q, %v", it.Value, err)
	}
	left(t, s, 0)
}

// A transaction that fails publishes nothing; one of many keeps its order.
func TestOutboxUnderLoad(t *testing.T) {
	t.Parallel()
	s := outboxed(t, memory(t))
	r := read(t, s, cloudevents.Acked())
	const writers, each = 8, 700 // more than wait in memory
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := s.Transact(t.Context(), []state.Change{upsert(fmt.Sprint("k", w), fmt.Sprint(i))}, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	bad := upsert("x", `1`)
	bad.ETag = new("99")
	if err := s.Transact(t.Context(), []state.Change{upsert("y", `1`), bad}, ""); fault.KindOf(err) != fault.Conflict {
		t.Errorf("got %v", err)
	}
	wg.Wait()
	r.data(t, writers*each)
	left(t, s, 0)
	next := map[string]int{}
	for _, text := range r.data(t, writers*each) {
		key, value, _ := strings.Cut(text, "=")
		if fmt.Sprint(next[key]) != value {
			t.Fatalf("%s: got %s, want %d", key, value, next[key])
		}
		next[key]++
	}
}

// What was left is published by the next one that reads; what a living process
// owns is not.
func TestOutboxOfOthers(t *testing.T) {
	t.Parallel()
	d := memory(t)
	s := outboxed(t, d)
	first := read(t, s, cloudevents.Left("stopping"))
	if err := s.Transact(t.Context(), []state.Change{upsert("a", `1`), upsert("a2", `2`)}, ""); err != nil {
		t.Fatal(err)
	}
	first.data(t, 2)
	first.end(t)
	left(t, s, 2)

	host := first.rows[0].Owner.Host
	foreign := func(name, host string, pid int, since time.Duration) state.Change {
		row := state.Row{Key: name, ID: "outbox-" + name, Data: []byte(name), Owned: time.Now().Add(-since)}
		row.Owner.Host, row.Owner.Process.PID = host, pid
		b, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		return state.Change{Key: "outbox-" + name, Value: b}
	}
	const never = 1 << 30 // no process has this number
	if err := s.Apply(t.Context(), []state.Change{
		foreign("dead", host, never, 0), foreign("alive", host+"x", 1, 0), foreign("silent", host+"x", 1, 2*time.Minute),
		{Key: "outbox-noise", Value: []byte(`"an app's own"`)},
	}); err != nil {
		t.Fatal(err)
	}
	second := read(t, s, cloudevents.Acked())
	got := map[string]bool{}
	for _, text := range second.data(t, 4) {
		got[text] = true
	}
	if len(got) != 4 || !got["a=1"] || !got["a2=2"] || !got["dead=dead"] || !got["silent=silent"] {
		t.Errorf("published %v", got)
	}
	left(t, s, 2) // alive's and the app's
}

// looked counts the looks at all keys, and fails the first of them.
type looked struct {
	state.Driver
	state.Transactor
	state.Lister
	looks, fails atomic.Int32
}

func (d *looked) Keys(ctx context.Context, prefix, token string, limit int) ([]string, string, error) {
	d.looks.Add(1)
	if d.fails.Add(-1) >= 0 {
		return nil, "", fault.New(fault.Unavailable, "the store is away")
	}
	return d.Lister.Keys(ctx, prefix, token, limit)
}

func look(t *testing.T) *looked {
	d := memory(t)
	return &looked{Driver: d, Transactor: d.(state.Transactor), Lister: d.(state.Lister)}
}

// A store that is away for a moment ends the reading, which goes on when it is
// begun again.
func TestOutboxOfAStoreThatWasAway(t *testing.T) {
	t.Parallel()
	d := look(t)
	d.fails.Store(1)
	s := outboxed(t, d)
	if err := s.Transact(t.Context(), []state.Change{upsert("a", `1`)}, ""); err != nil {
		t.Fatal(err)
	}
	err := s.Queue().Run(t.Context(), func(context.Context, *cloudevents.Delivery) error { return nil })
	if fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("got %v", err)
	}
	if got := read(t, s, cloudevents.Acked()).data(t, 1); got[0] != "a=1" {
		t.Errorf("published %q", got)
	}
	left(t, s, 0)
}

// A transaction that was refused needs no look at the store.
func TestRefusedTransactionsCostNoLook(t *testing.T) {
	t.Parallel()
	d := look(t)
	s := outboxed(t, d)
	r := read(t, s, cloudevents.Acked())
	bad := upsert("a", `1`)
	bad.ETag = new("99")
	for range 20 {
		if err := s.Transact(t.Context(), []state.Change{bad}, ""); fault.KindOf(err) != fault.Conflict {
			t.Fatalf("got %v", err)
		}
	}
	if err := s.Transact(t.Context(), []state.Change{upsert("b", `1`)}, ""); err != nil {
		t.Fatal(err)
	}
	r.data(t, 1)
	if n := d.looks.Load(); n != 1 {
		t.Errorf("%d looks at the store, want the one at the start", n)
	}
}
