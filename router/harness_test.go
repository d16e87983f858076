package router

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets d go by in a synctest bubble, and then all that follows settle.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// strict fails the test when Watermill has to recover from a panic of ours.
type strict struct {
	slog.Handler
	t testing.TB
}

func (s strict) Enabled(context.Context, slog.Level) bool { return true }
func (s strict) WithAttrs([]slog.Attr) slog.Handler       { return s }

func (s strict) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "Panic recovered") {
		s.t.Error(r.Message)
	}
	return nil
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// running returns a router that runs until the test ends.
func running(t *testing.T, o Options) *Router {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(strict{slog.DiscardHandler, t})
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	<-r.inner.Running()
	return r
}

func mustAdd(t *testing.T, r *Router, route Route) {
	t.Helper()
	if err := r.Add(route); err != nil {
		t.Fatal(err)
	}
}

// book is a source fed by hand that writes down every outcome.
type book struct {
	t  testing.TB
	in chan *cloudevents.Delivery

	mu       sync.Mutex
	outcomes map[string][]cloudevents.Outcome
	refused  []string
	order    []string
}

func newBook(t testing.TB) *book {
	return &book{t: t, in: make(chan *cloudevents.Delivery), outcomes: map[string][]cloudevents.Outcome{}}
}

// Run implements Source.
func (b *book) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-b.in:
			if err := emit(ctx, d); err != nil {
				b.mu.Lock()
				b.refused = append(b.refused, string(d.Body))
				b.mu.Unlock()
			}
		}
	}
}

// put hands over a delivery whose body is its name; "k/3" has the key "k".
func (b *book) put(names ...string) {
	for _, name := range names {
		b.in <- b.delivery(name)
	}
}

func (b *book) delivery(name string) *cloudevents.Delivery {
	d := &cloudevents.Delivery{Body: []byte(name), Origin: "book"}
	if key, _, ok := strings.Cut(name, "/"); ok {
		d.Key = key
	}
	d.Settle = func(o cloudevents.Outcome) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.outcomes[name] = append(b.outcomes[name], o)
		b.order = append(b.order, name)
		if n := len(b.outcomes[name]); n > 1 {
			b.t.Errorf("%s was settled %d times", name, n)
		}
	}
	return d
}

// got returns the outcome of a name in one word with its wait, or "".
func (b *book) got(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.outcomes[name]) == 0 {
		return ""
	}
	o := b.outcomes[name][0]
	return o.Verdict.String()
}

func (b *book) settled() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.order)
}

func (b *book) want(name, verdict string) {
	b.t.Helper()
	if got := b.got(name); got != verdict {
		b.t.Errorf("%s: settled %q, want %q", name, got, verdict)
	}
}

// script answers each try with the next outcome; the last one repeats.
type script struct {
	mu    sync.Mutex
	say   []cloudevents.Outcome
	calls []string // body@attempt
	at    []time.Duration
	start time.Time
}

func newScript(say ...cloudevents.Outcome) *script { return &script{say: say, start: time.Now()} }

func (s *script) send(_ context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf("%s@%d", d.Body, d.Attempt))
	s.at = append(s.at, time.Since(s.start))
	return s.say[min(len(s.calls), len(s.say))-1]
}

func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// cemetery collects dead letters; the first fail writes fail.
type cemetery struct {
	mu      sync.Mutex
	fail    int
	tried   int
	letters []*DeadLetter
}

func (c *cemetery) bury(_ context.Context, l *DeadLetter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tried++; c.tried <= c.fail {
		return fault.New(fault.Unavailable, "the cemetery is closed")
	}
	c.letters = append(c.letters, l)
	return nil
}

func (c *cemetery) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.letters)
}

var (
	ack  = cloudevents.Acked()
	drop = cloudevents.Dropped("the app said so", nil)
	nope = cloudevents.Retried(fault.New(fault.Unavailable, "refused"), 0)
)

func everySecond(limit int) resilience.Retry {
	return resilience.Retry{Constant: true, Initial: time.Second, Limit: limit}
}

func ackAll(context.Context, *cloudevents.Delivery) cloudevents.Outcome { return ack }

func to(send func(context.Context, *cloudevents.Delivery) cloudevents.Outcome) []Target {
	return []Target{{Name: "target", Send: send}}
}

func event(t testing.TB, attrs ...cloudevents.Attr) *cloudevents.Event {
	t.Helper()
	all := append([]cloudevents.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "test"}, {Name: "type", Value: "t"}}, attrs...)
	e, err := cloudevents.New("text/plain", []byte("data"), all...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
