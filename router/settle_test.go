package router

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// settleRow is one row of the delivery contract.
type settleRow struct {
	name     string
	event    string // "k/1" has a key
	say      []cloudevents.Outcome
	policy   resilience.Retry
	letters  bool
	closed   int // how many writes of the dead letter fail
	giveBack bool
	after    time.Duration // how long to wait before looking

	want    string // what the source is told
	calls   []string
	at      []time.Duration
	buried  int
	reason  string
	attempt int
}

func settleRows() []settleRow {
	nopeAfter := cloudevents.Retried(errors.New("busy"), 7*time.Second)
	discard := cloudevents.Outcome{Verdict: cloudevents.Drop, Reason: "unimplemented", Discard: true}
	return []settleRow{
		{name: "ack", event: "1", say: o(ack), want: "ack", calls: []string{"1@1"}},
		{name: "drop without a dead letter", event: "1", say: o(drop), want: "ack", calls: []string{"1@1"}},
		{name: "drop with a dead letter", event: "1", say: o(drop), letters: true, want: "ack", calls: []string{"1@1"}, buried: 1, reason: "the app said so", attempt: 1},
		{name: "discard skips the dead letter", event: "1", say: o(discard), letters: true, want: "ack", calls: []string{"1@1"}},
		{name: "leave", event: "1", say: o(cloudevents.Left("rebalanced")), letters: true, want: "leave", calls: []string{"1@1"}},
		{
			name: "retry under the policy, then ack", event: "1", say: o(nope, nope, ack), policy: everySecond(5), letters: true, after: 10 * time.Second,
			want: "ack", calls: []string{"1@1", "1@2", "1@3"}, at: []time.Duration{0, time.Second, 2 * time.Second},
		},
		{
			name: "retry after is kept to", event: "1", say: o(nopeAfter, ack), policy: everySecond(5), after: 10 * time.Second,
			want: "ack", calls: []string{"1@1", "1@2"}, at: []time.Duration{0, 7 * time.Second},
		},
		{
			name: "used up, with a dead letter", event: "1", say: o(nope), policy: everySecond(2), letters: true, after: time.Hour,
			want: "ack", calls: []string{"1@1", "1@2", "1@3"}, buried: 1, reason: "refused", attempt: 3,
		},
		{
			name: "the app says retry, without an error", event: "1", say: o(cloudevents.Retried(nil, 0)), policy: everySecond(1), letters: true, after: time.Hour,
			want: "ack", calls: []string{"1@1", "1@2"}, buried: 1, reason: "the target said retry", attempt: 2,
		},
		{
			name: "used up, no dead letter: waits in its lane", event: "1", say: o(nope, nope, nope, ack), policy: everySecond(1), after: time.Minute,
			want: "ack", calls: []string{"1@1", "1@2", "1@3", "1@4"},
			at: []time.Duration{0, time.Second, 31 * time.Second, 32 * time.Second},
		},
		{
			name: "used up, given back", event: "1", say: o(nope), policy: everySecond(1), giveBack: true, after: time.Minute,
			want: "retry", calls: []string{"1@1", "1@2"},
		},
		{
			name: "used up, but keyed: waits in its lane", event: "k/1", say: o(nope, nope, nope, ack), policy: everySecond(1), giveBack: true, after: time.Minute,
			want: "ack", calls: []string{"k/1@1", "k/1@2", "k/1@3", "k/1@4"},
		},
		{name: "still waiting is not settled", event: "1", say: o(nope), policy: everySecond(-1), after: time.Hour, want: ""},
		{
			name: "dead letter not written at first", event: "1", say: o(drop), letters: true, closed: 3, after: 95 * time.Second,
			want: "ack", calls: []string{"1@1"}, buried: 1, reason: "the app said so", attempt: 1,
		},
		{name: "dead letter never written", event: "1", say: o(drop), letters: true, closed: 1000, giveBack: true, after: time.Hour, want: "", calls: []string{"1@1"}},
	}
}

// TestSettle is the delivery contract, row by row, in fake time.
func TestSettle(t *testing.T) {
	t.Parallel()
	for _, row := range settleRows() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { row.run(t) })
		})
	}
}

func (row settleRow) run(t *testing.T) {
	b, s, c := newBook(t), newScript(row.say...), &cemetery{fail: row.closed}
	route := Route{
		Name: "r", Source: b, GiveBack: row.giveBack,
		Redelivery: resilience.Retry{Constant: true, Initial: 30 * time.Second},
		Targets:    []Target{{Name: "target", Send: s.send, Policy: resilience.Policy{Retry: row.policy}}},
	}
	if row.letters {
		route.DeadLetter = c.bury
	}
	mustAdd(t, running(t, Options{}), route)
	b.put(row.event)
	pass(row.after)
	b.want(row.event, row.want)
	if row.calls != nil && !cmp.Equal(s.calls, row.calls) {
		t.Errorf("calls %s", cmp.Diff(row.calls, s.calls))
	}
	if row.at != nil && !cmp.Equal(s.at, row.at) {
		t.Errorf("times %s", cmp.Diff(row.at, s.at))
	}
	if c.count() != row.buried {
		t.Fatalf("%d dead letters, want %d", c.count(), row.buried)
	}
	if row.buried == 0 {
		return
	}
	l := c.letters[0]
	if l.Reason != row.reason || l.Attempts != row.attempt || l.Target != "target" || l.Route != "r" || string(l.Delivery.Body) != row.event {
		t.Errorf("letter %+v", l)
	}
}

func o(list ...cloudevents.Outcome) []cloudevents.Outcome { return list }

func TestUndecodable(t *testing.T) {
	t.Parallel()
	bad := fault.New(fault.Invalid, "scan event: not JSON")
	rows := []struct {
		name    string
		err     error
		letters bool
		after   time.Duration
		want    string
		buried  int
		kind    string
		decodes int
	}{
		{name: "dead letter", err: bad, letters: true, want: "ack", buried: 1, kind: "invalid", decodes: 1},
		{name: "held, and looked at once a minute", err: bad, after: 10*time.Minute + time.Second, want: "", decodes: 11},
		{name: "dropped by the decoder", err: fault.New(fault.Dropped, "expired"), want: "ack", decodes: 1},
		{name: "dropped by the decoder, dead letter", err: fault.New(fault.Dropped, "expired"), letters: true, want: "ack", buried: 1, kind: "dropped", decodes: 1},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, s, c := newBook(t), newScript(ack), &cemetery{}
				decodes := 0
				route := Route{Name: "r", Source: b, Targets: to(s.send), Decode: func(*cloudevents.Delivery) error {
					decodes++
					return row.err
				}}
				if row.letters {
					route.DeadLetter = c.bury
				}
				mustAdd(t, running(t, Options{}), route)
				b.put("1")
				pass(row.after)
				b.want("1", row.want)
				if c.count() != row.buried || decodes != row.decodes || s.count() != 0 {
					t.Errorf("%d letters, %d decodes, %d sends", c.count(), decodes, s.count())
				}
				if row.buried == 1 && (c.letters[0].Kind != row.kind || c.letters[0].Target != "" || string(c.letters[0].Delivery.Body) != "1") {
					t.Errorf("letter %+v", c.letters[0])
				}
			})
		})
	}
}

func TestUndecodableHealsWhenDecodeDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := newBook(t), newScript(ack)
		var healed atomic.Bool
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, Targets: to(s.send),
			Decode: func(*cloudevents.Delivery) error {
				if healed.Load() {
					return nil
				}
				return errors.New("no schema yet")
			},
		})
		b.put("1")
		synctest.Wait()
		healed.Store(true)
		pass(2 * time.Minute)
		b.want("1", "ack")
	})
}

func TestTargetsAreServedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, first, second := newBook(t), newScript(ack), newScript(nope, nope, nope, ack)
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, Targets: []Target{
			{Name: "first", Send: first.send},
			{Name: "second", Send: second.send, Policy: resilience.Policy{Retry: everySecond(1)}},
		}})
		b.put("1")
		pass(time.Minute)
		b.want("1", "ack")
		if first.count() != 1 || second.count() != 4 {
			t.Errorf("first %d, second %d", first.count(), second.count())
		}
	})
}

func TestSteps(t *testing.T) {
	t.Parallel()
	mark := Step{Name: "mark", Do: func(_ context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		return e.With(cloudevents.Attr{Name: "marked", Value: "yes"}), nil
	}}
	end := func(out cloudevents.Outcome) Step {
		return Step{Name: "end", Do: func(context.Context, *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
			return nil, &out
		}}
	}
	same := Step{Name: "same", Do: func(context.Context, *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) { return nil, nil }}
	rows := []struct {
		name   string
		steps  []Step
		say    cloudevents.Outcome
		want   string
		marked bool // what the target saw
		calls  int
		buried int
	}{
		{name: "changed event reaches the target", steps: []Step{mark, same}, say: ack, want: "ack", marked: true, calls: 1},
		{name: "filter", steps: []Step{end(ack), mark}, say: ack, want: "ack"},
		{name: "drop", steps: []Step{mark, end(drop)}, say: ack, want: "ack", buried: 1},
		{name: "dead letter has the event as it came", steps: []Step{mark}, say: drop, want: "ack", marked: true, calls: 1, buried: 1},
		{name: "leave", steps: []Step{end(cloudevents.Left("away"))}, say: ack, want: "leave"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, c := newBook(t), &cemetery{}
				calls := 0
				mustAdd(t, running(t, Options{}), Route{
					Name: "r", Source: b, Steps: row.steps, DeadLetter: c.bury,
					Targets: to(func(_ context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
						calls++
						if _, ok := d.Event.Attr("marked"); ok != row.marked {
							t.Errorf("marked %v", ok)
						}
						return row.say
					}),
				})
				d := b.delivery("1")
				d.Event = event(t)
				b.in <- d
				synctest.Wait()
				b.want("1", row.want)
				if calls != row.calls || c.count() != row.buried {
					t.Fatalf("%d calls, %d letters", calls, c.count())
				}
				if row.buried == 1 {
					if _, ok := c.letters[0].Delivery.Event.Attr("marked"); ok {
						t.Error("the dead letter has the changed event")
					}
				}
			})
		})
	}
}

func TestStepsRunOnceAcrossRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s, runs := newBook(t), newScript(nope, nope, ack), 0
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, Targets: to(s.send),
			Steps: []Step{{Name: "count", Do: func(_ context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
				runs++
				return e, nil
			}}},
		})
		d := b.delivery("1")
		d.Event = event(t)
		b.in <- d
		pass(time.Minute)
		b.want("1", "ack")
		if runs != 1 || s.count() != 3 {
			t.Errorf("%d runs, %d sends", runs, s.count())
		}
	})
}

func TestHopLimit(t *testing.T) {
	t.Parallel()
	e := event(t)
	for n := range MaxHops {
		next, err := Hop(e)
		if err != nil {
			t.Fatalf("hop %d: %v", n+1, err)
		}
		e = next
	}
	if n, _ := e.Attr(HopAttribute); n != "32" {
		t.Fatalf("%s hops", n)
	}
	if _, err := Hop(e); fault.KindOf(err) != fault.Invalid {
		t.Errorf("one more: %v", err)
	}
	for _, odd := range []string{"many", "-5"} {
		next, err := Hop(event(t, cloudevents.Attr{Name: HopAttribute, Value: odd}))
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := next.Attr(HopAttribute); n != "1" {
			t.Errorf("after %q: %s hops", odd, n)
		}
	}
}

// TestServedTargetsAreNotLeftToTheSource: a source does not know which targets
// have the event, so it does not get it back once one has.
func TestServedTargetsAreNotLeftToTheSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, first, second := newBook(t), newScript(ack), newScript(nope, nope, nope, ack)
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, GiveBack: true, Targets: append(to(first.send), to(second.send)...)})
		b.in <- b.delivery("1")
		pass(time.Hour)
		b.want("1", "ack")
		if first.count() != 1 || second.count() != 4 {
			t.Errorf("the first target was sent the event %d times, the second %d times", first.count(), second.count())
		}
	})
}

// TestGivenBackPausesGrow: the attempts that the source counted keep the
// back-off going.
func TestGivenBackPausesGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		settled := make(chan cloudevents.Outcome, 1)
		source := SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			d := &cloudevents.Delivery{Body: []byte("x"), Attempt: 5, Settle: func(o cloudevents.Outcome) { settled <- o }}
			if err := emit(ctx, d); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		s := newScript(nope)
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: source, GiveBack: true, Targets: to(s.send)})
		if o := <-settled; o.Verdict != cloudevents.Retry || o.After < 2*time.Second {
			t.Errorf("the fifth attempt was given back with %v, after %v", o.Verdict, o.After)
		}
	})
}

func TestPanics(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name    string
		letters bool
		panics  int // how many calls panic
		calls   int
		buried  int
	}{
		{name: "once, then well", panics: 1, calls: 2},
		{name: "always, with a dead letter", letters: true, panics: 1000, calls: maxPanics, buried: 1},
		{name: "often, without a dead letter: never lost", panics: 6, calls: 7},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, c, calls := newBook(t), &cemetery{}, 0
				route := Route{Name: "r", Source: b, Targets: to(func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
					if calls++; calls <= row.panics {
						panic("boom")
					}
					return ack
				})}
				if row.letters {
					route.DeadLetter = c.bury
				}
				mustAdd(t, running(t, Options{}), route)
				b.put("1")
				pass(5 * time.Minute)
				b.want("1", "ack")
				if calls != row.calls || c.count() != row.buried {
					t.Errorf("%d calls, %d letters", calls, c.count())
				}
				if row.buried == 1 && (c.letters[0].Kind != "internal" || c.letters[0].Attempts != maxPanics) {
					t.Errorf("letter %+v", c.letters[0])
				}
			})
		})
	}
}

// TestPanicsElsewhere has everything that a caller hands in panic.
func TestPanicsElsewhere(t *testing.T) {
	t.Parallel()
	boom := func() { panic("boom") }
	once := func() func() {
		first := true
		return func() {
			if first {
				first = false
				boom()
			}
		}
	}
	rows := []struct {
		name  string
		build func(r *Route, o *Options)
		want  string
	}{
		{name: "key", want: "ack", build: func(r *Route, _ *Options) {
			r.Key = func(*cloudevents.Delivery) string { boom(); return "" }
		}},
		{name: "gate", want: "ack", build: func(r *Route, _ *Options) {
			f := once()
			r.Gate = func(context.Context) error { f(); return nil }
		}},
		{name: "decode", want: "ack", build: func(r *Route, _ *Options) {
			f := once()
			r.Decode = func(*cloudevents.Delivery) error { f(); return nil }
		}},
		{name: "dead letter", want: "ack", build: func(r *Route, _ *Options) {
			f := once()
			r.Targets = to(newScript(drop).send)
			r.DeadLetter = func(context.Context, *DeadLetter) error { f(); return nil }
		}},
		{name: "observer", want: "ack", build: func(_ *Route, o *Options) {
			f := once()
			o.Observer = observe(func(Start) { f() })
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, opts := newBook(t), Options{}
				route := Route{Name: "r", Source: b, Targets: to(ackAll)}
				row.build(&route, &opts)
				mustAdd(t, running(t, opts), route)
				b.put("k/1", "k/2")
				pass(10 * time.Minute)
				b.want("k/1", row.want)
				b.want("k/2", row.want)
			})
		})
	}
}

func TestOpenBreakerIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s, c := newBook(t), newScript(nope, nope, ack), &cemetery{}
		// The first two are tried and fail, which opens the breaker; the third
		// is refused, and neither buried for that nor counted.
		breaker := resilience.NewBreaker(resilience.BreakerConfig{
			Timeout: 10 * time.Second,
			Trip:    func(n resilience.Counts) bool { return n.ConsecutiveFailures >= 2 },
		})
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, DeadLetter: c.bury,
			Targets: []Target{{Name: "target", Send: s.send, Policy: resilience.Policy{Breaker: breaker}}},
		})
		b.put("1", "2", "3")
		pass(time.Minute)
		b.want("3", "ack")
		if want := []string{"1@1", "2@1", "3@1"}; !cmp.Equal(s.calls, want) || c.count() != 2 {
			t.Errorf("calls %v, %d letters", s.calls, c.count())
		}
	})
}

func TestTimeoutOfATargetIsARetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), &cemetery{}
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, DeadLetter: c.bury,
			Targets: []Target{{
				Name: "target", Policy: resilience.Policy{Timeout: time.Second, Retry: everySecond(1)},
				Send: func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome {
					<-ctx.Done()
					return cloudevents.Left("cut short")
				},
			}},
		})
		b.put("1")
		pass(time.Minute)
		b.want("1", "ack")
		if c.count() != 1 || c.letters[0].Kind != "timeout" || c.letters[0].Attempts != 2 {
			t.Errorf("letters %+v", c.letters)
		}
	})
}

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s, open := newBook(t), newScript(ack), make(chan struct{})
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, Targets: to(s.send),
			Gate: func(ctx context.Context) error {
				select {
				case <-open:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		})
		b.put("1")
		pass(time.Hour)
		if s.count() != 0 {
			t.Fatal("it went past the gate")
		}
		close(open)
		synctest.Wait()
		b.want("1", "ack")
		if want := []string{"1@1"}; !cmp.Equal(s.calls, want) {
			t.Errorf("calls %v", s.calls)
		}
	})
}
