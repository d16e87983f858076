package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// started returns a router whose routes run as soon as they are added.
func started(t *testing.T) *Router {
	t.Helper()
	r := running(t, Options{})
	synctest.Wait()
	return r
}

// inject hands a delivery over and returns what its owner was told.
func inject(t *testing.T, r *Router, name string, d *cloudevents.Delivery) cloudevents.Outcome {
	t.Helper()
	told := make(chan cloudevents.Outcome, 2)
	d.Settle = func(o cloudevents.Outcome) { told <- o }
	if err := r.Inject(t.Context(), name, d); err != nil {
		t.Fatal(err)
	}
	o := <-told
	synctest.Wait()
	if len(told) > 0 {
		t.Errorf("settled twice: %v", <-told)
	}
	return o
}

func TestInjectTellsHowItEnded(t *testing.T) {
	t.Parallel()
	discard := cloudevents.Outcome{Verdict: cloudevents.Drop, Reason: "filter", Discard: true}
	tests := []struct {
		name    string
		say     cloudevents.Outcome
		letters bool // the route has a dead letter
		key     string
		want    cloudevents.Verdict
		discard bool
		buried  int
	}{
		{"taken", ack, true, "", cloudevents.Ack, false, 0},
		{"given up with a dead letter", drop, true, "", cloudevents.Drop, false, 1},
		{"given up without one", drop, false, "", cloudevents.Drop, true, 0},
		{"filtered", discard, true, "", cloudevents.Drop, true, 0},
		{"failed with a dead letter", nope, true, "", cloudevents.Drop, false, 1},
		{"failed without one", nope, false, "", cloudevents.Retry, false, 0},
		{"failed without one, in order", nope, false, "k", cloudevents.Retry, false, 0},
		{"left", cloudevents.Left("why"), true, "", cloudevents.Leave, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, dead := started(t), &cemetery{}
				route := Route{Name: "r", Source: newBook(t), Targets: to(newScript(tt.say).send), Decode: func(*cloudevents.Delivery) error { return nil }}
				route.Targets[0].Policy.Retry = everySecond(2)
				if tt.letters {
					route.DeadLetter = dead.bury
				}
				mustAdd(t, r, route)
				o := inject(t, r, "r", &cloudevents.Delivery{Body: []byte("x"), Key: tt.key})
				if o.Verdict != tt.want || o.Discard != tt.discard || dead.count() != tt.buried {
					t.Errorf("told %+v with %d dead letters", o, dead.count())
				}
				if s := r.Routes()[0]; s.Held != 0 || s.InFlight != 0 {
					t.Errorf("still held: %+v", s)
				}
			})
		})
	}
}

// TestInjectIsTriedAsOften has an injected delivery use the target's retries and
// count its attempts from the start.
func TestInjectIsTriedAsOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, s := started(t), newScript(nope, nope, ack)
		route := Route{Name: "r", Source: newBook(t), Targets: to(s.send), Decode: func(*cloudevents.Delivery) error { return nil }}
		route.Targets[0].Policy.Retry = everySecond(2)
		mustAdd(t, r, route)
		if o := inject(t, r, "r", &cloudevents.Delivery{Body: []byte("x")}); o.Verdict != cloudevents.Ack {
			t.Errorf("told %+v", o)
		}
		if got := len(s.calls); got != 3 || s.calls[0] != "x@1" || s.calls[2] != "x@3" {
			t.Errorf("calls %v", s.calls)
		}
	})
}

func TestInjectLeavesWhatCannotBeDeadLettered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, dead := started(t), &cemetery{fail: 1}
		mustAdd(t, r, Route{Name: "r", Source: newBook(t), Targets: to(newScript(drop).send), DeadLetter: dead.bury, Decode: func(*cloudevents.Delivery) error { return nil }})
		if o := inject(t, r, "r", &cloudevents.Delivery{Body: []byte("x")}); o.Verdict != cloudevents.Leave {
			t.Errorf("told %+v", o)
		}
		pass(time.Hour)
		if dead.tried != 1 {
			t.Errorf("the dead letter was tried %d times", dead.tried)
		}
	})
}

// TestInjectReadsStructuredEvents is for routes whose source mints its events.
func TestInjectReadsStructuredEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		got := make(chan string, 1)
		mustAdd(t, r, Route{Name: "r", Source: newBook(t), Targets: to(func(_ context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			got <- d.Event.ID() + string(d.Event.Data())
			return ack
		})})
		inject(t, r, "r", &cloudevents.Delivery{Body: []byte(`{"specversion":"1.0","id":"i","source":"s","type":"t","data": {"a" :1}}`)})
		if g := <-got; g != `i{"a" :1}` {
			t.Errorf("got %q", g)
		}
		err := r.Inject(t.Context(), "r", &cloudevents.Delivery{Body: []byte("x"), Settle: func(cloudevents.Outcome) { t.Error("settled") }})
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("err %v", err)
		}
	})
}

func TestInjectRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		never := func(cloudevents.Outcome) { t.Error("settled") }
		d := func() *cloudevents.Delivery {
			return &cloudevents.Delivery{Event: event(t), Settle: never}
		}
		if err := r.Inject(t.Context(), "nowhere", d()); fault.KindOf(err) != fault.NotFound {
			t.Errorf("no route: %v", err)
		}
		gone := errors.New("the client is gone")
		closed := Route{Name: "r", Source: newBook(t), Targets: to(ackAll), Gate: func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}}
		mustAdd(t, r, closed)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		if err := r.Inject(ctx, "r", d()); !errors.Is(err, gone) {
			t.Errorf("closed gate: %v", err)
		}
		if err := r.Inject(t.Context(), "r", &cloudevents.Delivery{}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("no Settle: %v", err)
		}
	})
}

// TestInjectIsLeftByAStop stops the route while an injected delivery waits for
// its next try.
func TestInjectIsLeftByAStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, told := started(t), make(chan cloudevents.Outcome, 1)
		route := Route{Name: "r", Source: newBook(t), Targets: to(newScript(nope).send), DeadLetter: (&cemetery{}).bury}
		route.Targets[0].Policy.Retry = resilience.Retry{Constant: true, Initial: time.Hour, Limit: -1}
		mustAdd(t, r, route)
		d := &cloudevents.Delivery{Event: event(t), Settle: func(o cloudevents.Outcome) { told <- o }}
		if err := r.Inject(t.Context(), "r", d); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := r.Remove(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
		if o := <-told; o.Verdict != cloudevents.Leave {
			t.Errorf("told %+v", o)
		}
	})
}

// heldClaims are claims of which another delivery has every key.
type heldClaims struct{}

func (heldClaims) Claim(context.Context, string) (ClaimState, error) { return Held, nil }
func (heldClaims) Confirm(context.Context, string) error             { return nil }
func (heldClaims) Release(string)                                    {}

// TestInjectDoesNotWaitToBeTried has nobody wait for what was refused.
func TestInjectDoesNotWaitToBeTried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := started(t)
		mustAdd(t, r, Route{
			Name: "r", Source: newBook(t), Targets: to(ackAll), DeadLetter: (&cemetery{}).bury,
			Once: &Once{Key: (*cloudevents.Event).ID, Claims: heldClaims{}},
		})
		if o := inject(t, r, "r", &cloudevents.Delivery{Event: event(t)}); o.Verdict != cloudevents.Retry {
			t.Errorf("told %+v", o)
		}
	})
}

// TestInjectThatIsLeftHoldsUpNobody has an injected delivery whose dead letter
// cannot be written in front of others of its key, which the source has given.
func TestInjectThatIsLeftHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, b, dead := started(t), newBook(t), &cemetery{fail: 1}
		going, said := make(chan struct{}), 0
		send := func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
			if said++; said > 1 {
				return ack
			}
			<-going
			return drop
		}
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(send), DeadLetter: dead.bury, Decode: func(*cloudevents.Delivery) error { return nil }})
		told := make(chan cloudevents.Outcome, 1)
		d := &cloudevents.Delivery{Body: []byte("x"), Key: "k", Settle: func(o cloudevents.Outcome) { told <- o }}
		if err := r.Inject(t.Context(), "r", d); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.put("k/1", "k/2")
		synctest.Wait()
		close(going)
		if o := <-told; o.Verdict != cloudevents.Leave {
			t.Errorf("told %+v", o)
		}
		synctest.Wait()
		b.want("k/1", "ack")
		b.want("k/2", "ack")
	})
}
