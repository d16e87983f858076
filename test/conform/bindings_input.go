package conform

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func inputCases() []bindingCase {
	return []bindingCase{
		{"input: events are well formed", (*bindingSuite).wellFormed},
		{"input: bodies arrive as they are", (*bindingSuite).inputBodies},
		{"input: acknowledged events do not come again", (*bindingSuite).acked},
		{"input: retry is delivered again", (*bindingSuite).inputRetry},
		{"input: left is delivered by the next read", (*bindingSuite).inputLeft},
		{"input: open events come again after close", (*bindingSuite).reopen},
		{"input: an event not taken stays owned", (*bindingSuite).notTaken},
		{"input: cancel while idle", (*bindingSuite).inputIdle},
		{"input: cancel while the router holds", (*bindingSuite).inputBlocked},
		{"input: outcomes after read", (*bindingSuite).outcomeAfterRead},
		{"input: settle twice", (*bindingSuite).inputSettleTwice},
		{"input: close while reading", (*bindingSuite).closeReading},
		{"input: what waits is counted", (*bindingSuite).inputBacklog},
	}
}

// reader is one running Read; its deliveries wait in got.
type reader struct {
	s      *bindingSuite
	got    chan *cloudevents.Delivery
	cancel context.CancelFunc
	done   chan error
	ended  bool
}

func (s *bindingSuite) reader(t *testing.T, d component.Driver) *reader {
	t.Helper()
	in, ok := d.(bindings.Reader)
	if !ok {
		t.Fatalf("%T has the input capability and does not implement bindings.Reader", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &reader{s: s, got: make(chan *cloudevents.Delivery), cancel: cancel, done: make(chan error, 1)}
	go func() {
		r.done <- in.Read(ctx, func(ctx context.Context, d *cloudevents.Delivery) error {
			select {
			case r.got <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return r
}

func (r *reader) next(t *testing.T) *cloudevents.Delivery {
	t.Helper()
	select {
	case d := <-r.got:
		return d
	case err := <-r.done:
		r.ended = true
		t.Fatalf("read returned early: %v", err)
	case <-time.After(r.s.Patience):
		t.Fatal("no event")
	}
	return nil
}

// again waits for the event with this id, acknowledging it and what else comes;
// false when it does not come for a while.
func (r *reader) again(id string, while time.Duration) bool {
	last := time.After(while)
	for {
		select {
		case d := <-r.got:
			d.Settle(cloudevents.Acked())
			if d.Event.ID() == id {
				return true
			}
		case <-last:
			return false
		}
	}
}

// stop ends the Read; it must return nil soon.
func (r *reader) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if r.ended {
		return
	}
	r.ended = true
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("read returned %v after its context ended, want nil", err)
		}
	case <-time.After(r.s.Patience):
		t.Fatal("read does not return when its context ends")
	}
}

func (s *bindingSuite) wellFormed(t *testing.T) {
	options, env := s.Options(t), environment(t)
	d := opened(t, s.def, env, options)
	defer shut(t, d)
	s.feed(t, options, "one")
	r := s.reader(t, d)
	defer r.stop(t)
	got := r.next(t)
	if got.Event == nil || got.Settle == nil {
		t.Fatalf("delivery %+v has no event or no settle", got)
	}
	defer got.Settle(cloudevents.Acked())
	e := got.Event
	if e.ID() == "" || e.Source() == "" || e.Type() == "" {
		t.Errorf("event %s lacks an attribute", e.JSON())
	}
	if got.Attempt != 1 || !strings.HasPrefix(got.Origin, env.Name) {
		t.Errorf("attempt %d from %q, want 1 from %q", got.Attempt, got.Origin, env.Name)
	}
	s.wantBody(t, got, "one")
}

func (s *bindingSuite) inputBodies(t *testing.T) {
	bodies := []string{"\xff\x00 not text", strings.Repeat("0123456789abcdef", 1<<16), `{"n":1.0,"n":2}`}
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	r := s.reader(t, d)
	defer r.stop(t)
	for _, body := range bodies {
		s.feed(t, options, body)
		got := r.next(t)
		s.wantBody(t, got, body)
		if string(got.Event.Data()) != string(got.Body) {
			t.Errorf("the event's data %q is not the body", short(got.Event.Data()))
		}
		got.Settle(cloudevents.Acked())
	}
}

func (s *bindingSuite) acked(t *testing.T) {
	options, env := s.Options(t), environment(t)
	d := opened(t, s.def, env, options)
	s.feed(t, options, "one")
	r := s.reader(t, d)
	got := r.next(t)
	got.Settle(cloudevents.Acked())
	r.stop(t)
	shut(t, d)
	d = opened(t, s.def, env, options)
	defer shut(t, d)
	r = s.reader(t, d)
	defer r.stop(t)
	if r.again(got.Event.ID(), 200*time.Millisecond) {
		t.Error("an acknowledged event came again")
	}
}

func (s *bindingSuite) inputRetry(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	s.feed(t, options, "one")
	r := s.reader(t, d)
	defer r.stop(t)
	first := r.next(t)
	first.Settle(cloudevents.Retried(fault.New(fault.Unavailable, "try later"), 10*time.Millisecond))
	if s.NoRedelivery {
		return
	}
	for {
		second := r.next(t)
		second.Settle(cloudevents.Acked())
		if second.Event.ID() != first.Event.ID() {
			continue
		}
		if second.Attempt != 2 {
			t.Errorf("attempt %d, want 2", second.Attempt)
		}
		s.wantBody(t, second, string(first.Body))
		return
	}
}

func (s *bindingSuite) inputLeft(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	s.feed(t, options, "one")
	r := s.reader(t, d)
	first := r.next(t)
	first.Settle(cloudevents.Left("stopping"))
	if r.again(first.Event.ID(), 50*time.Millisecond) {
		t.Error("a left event came again in the same read")
	}
	r.stop(t)
	if s.NoRedelivery {
		return
	}
	r = s.reader(t, d)
	defer r.stop(t)
	if !r.again(first.Event.ID(), s.Patience) {
		t.Error("a left event did not come with the next read")
	}
}

func (s *bindingSuite) reopen(t *testing.T) {
	if s.Forgets {
		return
	}
	options, env := s.Options(t), environment(t)
	delay := time.Hour
	if s.KeepsDelay {
		delay = cmp.Or(s.Delay, 300*time.Millisecond)
	}
	for i, outcome := range []cloudevents.Outcome{cloudevents.Left("stopping"), cloudevents.Retried(nil, delay)} {
		d := opened(t, s.def, env, options)
		s.feed(t, options, strings.Repeat("x", i+1))
		r := s.reader(t, d)
		first := r.next(t)
		due := time.Now().Add(outcome.After)
		first.Settle(outcome)
		r.stop(t)
		shut(t, d)
		d = opened(t, s.def, env, options)
		r = s.reader(t, d)
		if s.KeepsDelay && outcome.Verdict == cloudevents.Retry {
			second := r.next(t)
			second.Settle(cloudevents.Acked())
			if early := time.Until(due); early > 5*time.Millisecond || second.Attempt != 2 || second.Event.ID() != first.Event.ID() {
				t.Errorf("after close the retry came %s early as attempt %d, want 2 of the same event", early, second.Attempt)
			}
		} else if !r.again(first.Event.ID(), s.Patience) {
			t.Errorf("after %v and close the event did not come again", outcome.Verdict)
		}
		r.stop(t)
		shut(t, d)
	}
}

func (s *bindingSuite) notTaken(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	s.feed(t, options, "one")
	ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
	defer cancel()
	var id string
	err := d.(bindings.Reader).Read(ctx, func(_ context.Context, got *cloudevents.Delivery) error {
		id = got.Event.ID()
		cancel() // the route stops
		return fault.New(fault.Unavailable, "route is stopping")
	})
	if err != nil {
		t.Errorf("read returned %v after its context ended", err)
	}
	if s.NoRedelivery {
		return
	}
	r := s.reader(t, d)
	defer r.stop(t)
	if !r.again(id, s.Patience) {
		t.Error("an event that the router did not take is lost")
	}
}

func (s *bindingSuite) inputIdle(t *testing.T) {
	d := opened(t, s.def, environment(t), s.Options(t))
	defer shut(t, d)
	for range 3 {
		r := s.reader(t, d)
		r.stop(t)
	}
}

func (s *bindingSuite) inputBlocked(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	s.feed(t, options, "one", "two")
	ctx, cancel := context.WithCancel(t.Context())
	held, done := make(chan struct{}, 16), make(chan error, 1)
	go func() {
		done <- d.(bindings.Reader).Read(ctx, func(ctx context.Context, _ *cloudevents.Delivery) error {
			held <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-held
	cancel()
	if err := <-done; err != nil {
		t.Errorf("read returned %v after its context ended", err)
	}
}

func (s *bindingSuite) outcomeAfterRead(t *testing.T) {
	options, env := s.Options(t), environment(t)
	d := opened(t, s.def, env, options)
	s.feed(t, options, "one")
	r := s.reader(t, d)
	got := r.next(t)
	r.stop(t)
	got.Settle(cloudevents.Acked())
	shut(t, d)
	d = opened(t, s.def, env, options)
	r = s.reader(t, d)
	if r.again(got.Event.ID(), 200*time.Millisecond) {
		t.Error("an event acknowledged between read and close came again")
	}
	r.stop(t)
	shut(t, d)
}

func (s *bindingSuite) inputSettleTwice(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	s.feed(t, options, "one")
	r := s.reader(t, d)
	defer r.stop(t)
	got := r.next(t)
	got.Settle(cloudevents.Acked())
	got.Settle(cloudevents.Retried(nil, time.Millisecond))
	if r.again(got.Event.ID(), 100*time.Millisecond) {
		t.Error("a second outcome brought an acknowledged event back")
	}
}

func (s *bindingSuite) closeReading(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	s.feed(t, options, "one")
	r := s.reader(t, d)
	got := r.next(t)
	shut(t, d)
	select {
	case <-r.done: // with or without an error: the component is gone
	case <-time.After(r.s.Patience):
		t.Fatal("read goes on after close")
	}
	r.cancel()
	got.Settle(cloudevents.Acked())
}

// inputBacklog follows events that are held to their acknowledgement, where the
// source knows what waits.
func (s *bindingSuite) inputBacklog(t *testing.T) {
	options, env := s.Options(t), environment(t)
	d := opened(t, s.def, env, options)
	defer shut(t, d)
	b, ok := d.(bindings.Backlogged)
	if !ok {
		return
	}
	s.feed(t, options, "one", "two", "three")
	r := s.reader(t, d)
	defer r.stop(t)
	var held []*cloudevents.Delivery
	for range 3 {
		held = append(held, r.next(t))
	}
	awaitBacklog(t, s.Patience, 3, b.Backlog)
	for _, d := range held {
		d.Settle(cloudevents.Acked())
	}
	awaitBacklog(t, s.Patience, 0, b.Backlog)
}
