package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// scenario is everything that is drawn for one run of the model.
type scenario struct {
	Lanes, Window   int
	WindowBytes     int64
	Limit           int // retries of the target's policy
	Letters         bool
	LetterFails     int // writes that fail at first, for each letter
	GiveBack, Gated bool
	Targets         int
	Batched         bool // the target serves several at once
	Messages        []plan
	Moves           []move
}

// plan is one message and how the target treats it, try by try; then it acks.
type plan struct {
	Key   string
	Size  int
	Plays []play
}

type play struct {
	What string
	Took time.Duration
}

// move is something that happens to the route at a time.
type move struct {
	What string
	Wait time.Duration // since the move before
}

func drawScenario(t *rapid.T) scenario {
	short := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond
	})
	plays := rapid.Custom(func(t *rapid.T) play {
		return play{rapid.SampledFrom([]string{"ack", "retry", "retry", "after", "drop", "panic", "hang", "hang-drop"}).Draw(t, "what"), short.Draw(t, "took")}
	})
	plans := rapid.Custom(func(t *rapid.T) plan {
		return plan{
			Key:   rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(t, "key"),
			Size:  rapid.IntRange(8, 60).Draw(t, "size"),
			Plays: rapid.SliceOfN(plays, 0, 4).Draw(t, "plays"),
		}
	})
	moves := rapid.Custom(func(t *rapid.T) move {
		return move{rapid.SampledFrom([]string{"restart", "restart", "break", "pause", "resume"}).Draw(t, "what"), 3 * short.Draw(t, "wait")}
	})
	return scenario{
		Lanes: rapid.IntRange(1, 5).Draw(t, "lanes"), Window: rapid.IntRange(1, 12).Draw(t, "window"),
		WindowBytes: int64(rapid.IntRange(20, 300).Draw(t, "bytes")),
		Limit:       rapid.IntRange(-1, 2).Draw(t, "limit"),
		Letters:     rapid.Bool().Draw(t, "letters"), LetterFails: rapid.IntRange(0, 2).Draw(t, "letter fails"),
		GiveBack: rapid.Bool().Draw(t, "give back"), Gated: rapid.Bool().Draw(t, "gated"),
		Targets:  rapid.IntRange(1, 2).Draw(t, "targets"),
		Batched:  rapid.Bool().Draw(t, "batched"),
		Messages: rapid.SliceOfN(plans, 1, 30).Draw(t, "messages"),
		Moves:    rapid.SliceOfN(moves, 0, 8).Draw(t, "moves"),
	}
}

// model is a broker, a target and a cemetery that know what may happen.
type model struct {
	scenario
	mu     sync.Mutex
	msgs   []*item
	wrong  []string
	inside int
	busy   map[string]bool
	broken chan struct{} // breaks the source's run when closed
}

// item is what the model knows of one message.
type item struct {
	plan
	n         int
	out, done bool
	notBefore time.Time // after it was given back
	tries     int       // of both targets, over all deliveries
	// These are of the delivery at hand.
	delivery int
	failed   int  // genuine failures
	served   bool // by the last target
	first    bool // by the first target
	dropped  bool
	panics   int
	cut      bool
	buried   bool
	writes   int
}

func (m *model) fail(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

// Run implements Source: a broker that emits what nobody has, in order for each
// key.
func (m *model) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	m.mu.Lock()
	broken := make(chan struct{})
	m.broken = broken
	m.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-broken:
			return errors.New("connection lost")
		case <-time.After(10 * time.Millisecond):
		}
		for d := m.next(); d != nil; d = m.next() {
			if err := emit(ctx, d); err != nil {
				m.mu.Lock()
				m.of(d).out = false
				m.mu.Unlock()
				break
			}
		}
	}
}

// next makes a delivery of the first message that may go out.
func (m *model) next() *cloudevents.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.msgs {
		if x.done || x.out || time.Now().Before(x.notBefore) {
			continue
		}
		x.out = true
		x.delivery++
		x.failed, x.panics, x.writes = 0, 0, 0
		x.served, x.first, x.dropped, x.cut, x.buried = false, false, false, false, false
		settled, number := false, x.delivery
		body := fmt.Sprintf("%d.", x.n)
		body += strings.Repeat("x", max(0, x.Size-len(body)))
		return &cloudevents.Delivery{Body: []byte(body), Key: x.Key, Settle: func(o cloudevents.Outcome) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if settled || number != x.delivery {
				m.fail("message %d settled twice", x.n)
			}
			settled = true
			m.settle(x, o)
		}}
	}
	return nil
}

func (m *model) of(d *cloudevents.Delivery) *item {
	number, _, _ := strings.Cut(string(d.Body), ".")
	n, _ := strconv.Atoi(number)
	return m.msgs[n]
}

// settle checks an outcome. It runs under mu.
func (m *model) settle(x *item, o cloudevents.Outcome) {
	x.out = false
	switch o.Verdict {
	case cloudevents.Ack:
		x.done = true
		if !x.served && !x.buried && (!x.dropped || m.Letters) {
			m.fail("message %d acked: served %v, buried %v, dropped %v", x.n, x.served, x.buried, x.dropped)
		}
		for _, y := range m.msgs[:x.n] {
			if x.Key != "" && y.Key == x.Key && !y.done {
				m.fail("message %d overtook %d of key %q", x.n, y.n, x.Key)
			}
		}
	case cloudevents.Retry:
		if x.Key != "" || !m.GiveBack {
			m.fail("message %d given back", x.n)
		}
		x.notBefore = time.Now().Add(o.After)
	case cloudevents.Drop:
		m.fail("message %d: the source was told drop", x.n)
	}
}

// enter notes a try and returns how it will go.
func (m *model) enter(d *cloudevents.Delivery, target int) play {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.of(d)
	if m.inside++; m.inside > m.Lanes {
		m.fail("%d under way with %d lanes", m.inside, m.Lanes)
	}
	if x.Key != "" && m.busy[x.Key] {
		m.fail("two of key %q under way", x.Key)
	}
	m.busy[x.Key] = true
	if d.Attempt != 1+x.failed {
		m.fail("message %d: attempt %d after %d failures", x.n, d.Attempt, x.failed)
	}
	if x.served || x.dropped || x.buried || target == 0 && x.first {
		m.fail("message %d served again by target %d", x.n, target)
	}
	if x.tries >= len(x.Plays) {
		return play{What: "ack"}
	}
	x.tries++
	return x.Plays[x.tries-1]
}

// exit notes how a try went.
func (m *model) exit(d *cloudevents.Delivery, target int, what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.of(d)
	m.inside--
	m.busy[x.Key] = false
	switch what {
	case "ack":
		x.first = true
		x.served = target == m.Targets-1
	case "drop":
		x.dropped = true
	case "cut":
		x.cut = true
	case "panic":
		x.panics++
		x.failed++
	default:
		x.failed++
	}
}

// send is a target.
func (m *model) send(target int) func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		p := m.enter(d, target)
		how, out := "retry", nope
		switch p.What {
		case "hang", "hang-drop":
			<-ctx.Done()
			if how = "cut"; errors.Is(ctx.Err(), context.DeadlineExceeded) {
				how = "retry"
			} else if p.What == "hang-drop" {
				out = drop
			}
		default:
			if resilience.Sleep(ctx, p.Took) != nil {
				how, out = "cut", cloudevents.Retried(ctx.Err(), 0)
				break
			}
			how, out = m.answer(p.What)
		}
		m.exit(d, target, how)
		if how == "panic" {
			panic("boom")
		}
		return out
	}
}

// sendAll is the one target serving several at once. A panic would be that of
// all, so there is none.
func (m *model) sendAll(ctx context.Context, ds []*cloudevents.Delivery) []cloudevents.Outcome {
	outcomes := make([]cloudevents.Outcome, len(ds))
	var all sync.WaitGroup
	for i, d := range ds {
		all.Go(func() {
			defer func() {
				if recover() != nil {
					outcomes[i] = nope
				}
			}()
			outcomes[i] = m.send(0)(ctx, d)
		})
	}
	all.Wait()
	return outcomes
}

func (m *model) answer(what string) (string, cloudevents.Outcome) {
	switch what {
	case "ack":
		return "ack", ack
	case "drop":
		return "drop", drop
	case "panic":
		return "panic", nope
	case "after":
		return "retry", cloudevents.Retried(errors.New("busy"), 5*time.Second)
	}
	return "retry", nope
}

// bury is the dead letter; it knows who may come.
func (m *model) bury(_ context.Context, l *DeadLetter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.of(l.Delivery)
	usedUp := m.Limit >= 0 && x.failed > m.Limit
	if x.cut || x.buried || !x.dropped && !usedUp && x.panics < maxPanics {
		m.fail("message %d buried: cut %v, buried %v, dropped %v, failed %d, panics %d", x.n, x.cut, x.buried, x.dropped, x.failed, x.panics)
	}
	if x.writes++; x.writes <= m.LetterFails {
		return fault.New(fault.Unavailable, "closed")
	}
	x.buried = true
	return nil
}

func (m *model) route() Route {
	r := Route{
		Name: "r", Source: m, Lanes: m.Lanes, Window: m.Window, WindowBytes: m.WindowBytes, GiveBack: m.GiveBack,
	}
	for i := range m.Targets {
		r.Targets = append(r.Targets, Target{Name: strconv.Itoa(i), Send: m.send(i), Policy: resilience.Policy{
			Timeout: 20 * time.Second, Retry: resilience.Retry{Initial: 100 * time.Millisecond, Max: time.Second, Limit: m.Limit},
		}})
	}
	if m.Batched {
		r.Targets[0].SendAll = m.sendAll
	}
	if m.Letters {
		r.DeadLetter = m.bury
	}
	if m.Gated {
		r.Gate = func(ctx context.Context) error { return resilience.Sleep(ctx, 50*time.Millisecond) }
	}
	return r
}

// play runs the scenario and returns what went wrong.
func (m *model) play(t *testing.T) {
	r := running(t, Options{DrainTimeout: 2 * time.Second})
	mustAdd(t, r, m.route())
	for _, move := range m.Moves {
		<-time.After(move.Wait)
		m.look(r)
		m.move(t, r, move.What)
	}
	_ = r.Resume("r")
	for range 24 * 60 {
		pass(time.Minute)
		m.look(r)
		if m.finished() {
			return
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.msgs {
		if !x.done {
			m.fail("message %d is not done after a day: out %v, tries %d", x.n, x.out, x.tries)
		}
	}
}

func (m *model) move(t *testing.T, r *Router, what string) {
	switch what {
	case "restart":
		if err := r.Remove(t.Context(), "r"); err != nil {
			m.fail("remove: %v", err)
		}
		m.mu.Lock()
		for _, x := range m.msgs {
			if x.out {
				m.fail("message %d not settled by the stop", x.n)
			}
		}
		m.mu.Unlock()
		mustAdd(t, r, m.route())
	case "break":
		m.mu.Lock()
		if m.broken != nil {
			close(m.broken)
			m.broken = nil
		}
		m.mu.Unlock()
	case "pause":
		_ = r.Pause("r")
	case "resume":
		_ = r.Resume("r")
	}
}

// look checks the bounds from outside.
func (m *model) look(r *Router) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range r.Routes() {
		if s.Held > m.Window || s.InFlight > m.Lanes || s.HeldBytes > m.WindowBytes && s.Held > 1 {
			m.fail("bounds: %+v", s)
		}
	}
}

func (m *model) finished() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !slices.ContainsFunc(m.msgs, func(x *item) bool { return !x.done })
}

// TestModel checks, for whatever is drawn: order per key; no ack without a
// success, a drop or a durable dead letter; nothing dead-lettered by a shutdown;
// Settle exactly once; the bounds; attempts; and that all of it ends.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{scenario: drawScenario(rt), busy: map[string]bool{}}
		for i, p := range m.Messages {
			m.msgs = append(m.msgs, &item{plan: p, n: i})
		}
		synctest.Test(t, m.play)
		if len(m.wrong) > 0 {
			rt.Fatalf("%d things wrong, first: %s", len(m.wrong), m.wrong[0])
		}
	})
}
