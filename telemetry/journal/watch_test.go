package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/journal"
)

func watch(t *testing.T, j *journal.Journal, o journal.Watching) *journal.Watcher {
	t.Helper()
	w, err := j.Watch(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func next(t *testing.T, w *journal.Watcher) journal.Batch {
	t.Helper()
	b, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nothing wants that nothing comes for a while.
func nothing(t *testing.T, w *journal.Watcher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if b, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v, %v", b, err)
	}
}

// TestWatch: who watches sees what comes from now on, at once, and only what was
// asked for.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(0)
		happen(j, "r", "before", journal.Ack)
		w := watch(t, j, journal.Watching{Filter: journal.Filter{Route: "r"}})
		nothing(t, w)
		go func() {
			happen(j, "other", "1", journal.Ack)
			happen(j, "r", "2", journal.Ack)
		}()
		if got := next(t, w); !cmp.Equal(ids(got.Entries), []string{"2"}) || got.Lost != 0 {
			t.Errorf("got %+v", got)
		}
		nothing(t, w)
		happen(j, "r", "3", journal.Drop)
		if got := next(t, w); !cmp.Equal(ids(got.Entries), []string{"3"}) {
			t.Errorf("got %+v", got)
		}
		w.Close() // and once more at the end
	})
}

// TestASlowWatcher loses entries and is told how many; whoever writes does not wait.
func TestASlowWatcher(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const written = 20_000
		j := journal.New(256 << 10) // of which three quarters at least are in use
		w := watch(t, j, journal.Watching{Rate: journal.MaxRate})
		for n := range written {
			happen(j, "r", fmt.Sprint(n), journal.Ack)
		}
		got := next(t, w)
		if len(got.Entries) != 1000 || got.Lost != written-1000 {
			t.Fatalf("%d entries, %d lost", len(got.Entries), got.Lost)
		}
		happen(j, "r", "last", journal.Ack)
		if got := next(t, w); !cmp.Equal(ids(got.Entries), []string{"last"}) || got.Lost != 0 {
			t.Errorf("then %+v", got)
		}
	})
}

// TestTheRateOfAWatcher: what it costs is bounded by what it has asked for.
func TestTheRateOfAWatcher(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(0)
		w := watch(t, j, journal.Watching{Rate: 50})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var load sync.WaitGroup
		load.Go(func() {
			for n := range 10_000 {
				happen(j, "r", fmt.Sprint(n), journal.Ack)
				pass(time.Millisecond)
			}
		})
		looks, seen, lost := 0, 0, 0
		for {
			b, err := w.Next(ctx)
			if err != nil {
				break
			}
			looks, seen, lost = looks+1, seen+len(b.Entries), lost+int(b.Lost)
		}
		load.Wait()
		if looks > 101 || seen > 505 || seen < 450 || seen+lost < 9800 {
			t.Errorf("%d looks, %d seen, %d lost", looks, seen, lost)
		}
	})
}

// TestResume: who was cut off goes on where it was.
func TestResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(1)
		for n := range 5 {
			happen(j, "r", fmt.Sprint(n), journal.Ack)
		}
		if got := next(t, watch(t, j, journal.Watching{After: 3})); !cmp.Equal(ids(got.Entries), []string{"3", "4"}) {
			t.Errorf("got %+v", got)
		}
		if got := next(t, watch(t, j, journal.Watching{After: 100})); len(got.Entries) != 5 {
			t.Errorf("after one of another process %+v", got)
		}
		pass(time.Minute)
		since := time.Now()
		happen(j, "r", "new", journal.Ack)
		if got := next(t, watch(t, j, journal.Watching{Filter: journal.Filter{Since: since}})); !cmp.Equal(ids(got.Entries), []string{"new"}) {
			t.Errorf("since then %+v", got)
		}
		for n := range 9_999 {
			happen(j, "r", fmt.Sprint(n), journal.Ack)
		}
		got := next(t, watch(t, j, journal.Watching{After: 3, Rate: 500}))
		if int(got.Lost)+len(got.Entries) != 10_002 || len(got.Entries) != 550 {
			t.Errorf("%d entries, %d lost", len(got.Entries), got.Lost)
		}
	})
}

type payload []byte

func (p payload) Data() []byte { return p }

// TestPayloads are there while somebody watches who asked, and for that one alone.
func TestPayloads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(0)
		sold := func(id string) {
			var r journal.Round
			j.Begin(&r, journal.Event{ID: id, Payload: payload(bytes.Repeat([]byte("x"), 5000))}, journal.Nth{Route: "r"}, time.Now())
			r.End(journal.Ending{Outcome: journal.Ack}, 0)
		}
		plain := watch(t, j, journal.Watching{})
		sold("1")
		with := watch(t, j, journal.Watching{Payload: true, Filter: journal.Filter{ID: "2"}})
		sold("2")
		sold("3")
		if got := next(t, with); len(got.Entries) != 1 || len(got.Entries[0].Payload) != journal.MaxPreview {
			t.Errorf("got %+v", got)
		}
		for _, e := range append(next(t, plain).Entries, j.Find(journal.Filter{}, 9)...) {
			if e.Payload != nil {
				t.Errorf("%s has a payload", e.ID)
			}
		}
		with.Close()
		sold("4")
		if got := next(t, watch(t, j, journal.Watching{Payload: true, After: 3})); len(got.Entries) != 1 || got.Entries[0].Payload != nil {
			t.Errorf("of one that nobody asked about %+v", got)
		}
	})
}

// TestEnd: who watches gets what there was, and then hears that it was the last.
func TestEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(0)
		w := watch(t, j, journal.Watching{})
		go func() {
			happen(j, "r", "1", journal.Ack)
			j.End()
			j.End()
		}()
		if got := next(t, w); !cmp.Equal(ids(got.Entries), []string{"1"}) {
			t.Errorf("got %+v", got)
		}
		if _, err := w.Next(t.Context()); !errors.Is(err, journal.ErrEnded) {
			t.Errorf("then %v", err)
		}
	})
}

func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	j := journal.New(0)
	var all []*journal.Watcher
	for range journal.MaxWatchers {
		all = append(all, watch(t, j, journal.Watching{}))
	}
	if _, err := j.Watch(journal.Watching{}); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("one more: %v", err)
	}
	all[0].Close()
	watch(t, j, journal.Watching{})
}

// TestManyAtOnce has writers, watchers and lookers at it; each watcher sees or
// misses every entry, in order.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 3000
	j := journal.New(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var lookers, load sync.WaitGroup
	for n := range 3 {
		w := watch(t, j, journal.Watching{Payload: n > 0})
		lookers.Go(func() {
			for total, last := 0, uint64(0); total < writers*each; {
				b, err := w.Next(ctx)
				if err != nil {
					t.Errorf("%d of %d: %v", total, writers*each, err)
					return
				}
				for _, e := range b.Entries {
					if e.Seq <= last {
						t.Errorf("%d after %d", e.Seq, last)
					}
					last = e.Seq
				}
				total += len(b.Entries) + int(b.Lost)
			}
		})
	}
	for n := range writers {
		load.Go(func() {
			for i := range each {
				happen(j, "r", fmt.Sprint(n, "-", i), journal.Ack)
				if i%100 == 0 {
					j.Find(journal.Filter{ID: "0-0"}, 9)
					j.UnderWay(journal.Filter{}, 9)
					j.Recent(time.Second)
				}
			}
		})
	}
	load.Wait()
	lookers.Wait()
}
