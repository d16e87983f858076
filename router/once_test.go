package router

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// ledger is a Claims in memory that fails on demand.
type ledger struct {
	mu       sync.Mutex
	held     map[string]bool
	done     map[string]bool
	refuse   int // how many calls of Confirm fail
	confirms int
}

func newLedger() *ledger { return &ledger{held: map[string]bool{}, done: map[string]bool{}} }

func (l *ledger) Claim(_ context.Context, key string) (ClaimState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case key == "broken":
		return Held, fault.New(fault.Unavailable, "the store is away")
	case l.done[key]:
		return Delivered, nil
	case l.held[key]:
		return Held, nil
	}
	l.held[key] = true
	return Claimed, nil
}

func (l *ledger) Confirm(_ context.Context, key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.confirms++; l.confirms <= l.refuse {
		return fault.New(fault.Unavailable, "the disk is full")
	}
	l.done[key] = true
	delete(l.held, key)
	return nil
}

func (l *ledger) Release(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, key)
}

func (l *ledger) state() (held, done int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held), len(l.done)
}

// sameType makes events of one type count as one.
func sameType(l *ledger) *Once {
	return &Once{Key: func(e *cloudevents.Event) string { return e.Type() }, Claims: l}
}

func typed(b *book, name, typ string) *cloudevents.Delivery {
	d := b.delivery(name)
	e, err := cloudevents.New("text/plain", []byte(name), cloudevents.Attr{Name: "id", Value: name},
		cloudevents.Attr{Name: "source", Value: "s"}, cloudevents.Attr{Name: "type", Value: typ})
	if err != nil {
		b.t.Fatal(err)
	}
	d.Event = e
	return d
}

func TestOnceDeliversADuplicateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, l := newBook(t), newScript(ack), newLedger()
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 4, Targets: []Target{{Name: "t", Send: s.send}}, Once: sameType(l)})
		b.in <- typed(b, "1", "a")
		synctest.Wait()
		b.in <- typed(b, "2", "a")
		b.in <- typed(b, "3", "b")
		synctest.Wait()
		if diff := cmp.Diff([]string{"1@1", "3@1"}, s.calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		b.want("2", "ack")
		if c := r.Routes()[0].Counts; c.Acked != 3 || c.Duplicates != 1 {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestOnceWaitsForTheFirst(t *testing.T) {
	for _, row := range []struct {
		name  string
		first cloudevents.Outcome
		calls []string
	}{
		{"which is delivered", ack, []string{"1@1"}},
		{"which is dead-lettered", drop, []string{"1@1", "2@1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, l, c := newBook(t), newLedger(), &cemetery{}
				open, calls := make(chan struct{}), newScript(row.first, ack)
				r := running(t, Options{})
				mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 4, DeadLetter: c.bury, Once: sameType(l), Targets: []Target{{
					Name: "t", Send: func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
						if string(d.Body) == "1" {
							<-open
						}
						return calls.send(ctx, d)
					},
				}}})
				b.in <- typed(b, "1", "a")
				synctest.Wait()
				b.in <- typed(b, "2", "a")
				synctest.Wait()
				if calls.count() != 0 || b.got("2") != "" {
					t.Errorf("the second did not wait: calls %v", calls.calls)
				}
				close(open)
				pass(time.Minute)
				if diff := cmp.Diff(row.calls, calls.calls); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				b.want("1", "ack")
				b.want("2", "ack")
				if held, done := l.state(); held != 0 || done != 1 {
					t.Errorf("%d held, %d done", held, done)
				}
			})
		})
	}
}

func TestOnceConfirmsBeforeTheSourceHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, l := newBook(t), newScript(ack), newLedger()
		l.refuse = 2
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: []Target{{Name: "t", Send: s.send}}, Once: sameType(l)})
		b.in <- typed(b, "1", "a")
		synctest.Wait()
		if b.got("1") != "" {
			t.Errorf("told %s before it was noted", b.got("1"))
		}
		pass(time.Minute)
		b.want("1", "ack")
		if s.count() != 1 {
			t.Errorf("delivered %d times while it was noted", s.count())
		}
	})
}

func TestOnceReleasesWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, l := newBook(t), newScript(nope), newLedger()
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: []Target{{Name: "t", Send: s.send}}, Once: sameType(l)})
		b.in <- typed(b, "1", "a")
		pass(100 * time.Millisecond)
		if held, _ := l.state(); held != 1 {
			t.Errorf("%d claims held while it is retried", held)
		}
		if err := r.Remove(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
		b.want("1", "leave")
		if held, done := l.state(); held != 0 || done != 0 {
			t.Errorf("%d held, %d done", held, done)
		}
	})
}

func TestOnceWithoutAStoreOrKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, l := newBook(t), newScript(ack), newLedger()
		once := sameType(l)
		once.Key = func(e *cloudevents.Event) string {
			if e.Type() == "none" {
				return ""
			}
			return e.Type()
		}
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 2, Targets: []Target{{Name: "t", Send: s.send}}, Once: once})
		b.in <- typed(b, "1", "broken")
		b.in <- typed(b, "2", "none")
		b.in <- typed(b, "3", "none")
		pass(time.Second)
		b.want("1", "")
		b.want("2", "ack")
		b.want("3", "ack")
	})
}

func TestPausedRouteWaitsForResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := newBook(t), newScript(ack)
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: []Target{{Name: "t", Send: s.send}}, Paused: true})
		b.put("1")
		pass(time.Hour)
		if s.count() != 0 || !r.Routes()[0].Paused {
			t.Error("a paused route delivered")
		}
		if err := r.Resume("r"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.want("1", "ack")
	})
}

func TestAddManyIsAllOrNone(t *testing.T) {
	t.Parallel()
	r := running(t, Options{})
	route := func(name string) Route {
		return Route{Name: name, Source: newBook(t), Targets: []Target{{Name: "t", Send: newScript(ack).send}}}
	}
	mustAdd(t, r, route("a"))
	if err := r.Add(route("b"), route("a")); fault.KindOf(err) != fault.Conflict {
		t.Errorf("error %v", err)
	}
	if n := len(r.Routes()); n != 1 {
		t.Errorf("%d routes", n)
	}
	if err := r.Add(route("b"), route("c")); err != nil || len(r.Routes()) != 3 {
		t.Errorf("error %v, %d routes", err, len(r.Routes()))
	}
}
