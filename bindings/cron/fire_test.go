package cron

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// reading lets b tick until the test is over.
func reading(t *testing.T, b *binding, r *router) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Read(ctx, r.emit) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.wg.Wait()
		closed(t, b)
	})
	synctest.Wait()
}

// TestFire: a tick that is asked for comes at once, looks like one of the schedule,
// and changes nothing of it.
func TestFire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := defaults("*/5 * * * *")
		o.CatchUp = "last"
		b, r := mustOpen(t, environment(t), o), &router{takes: time.Second}
		if _, _, err := b.Fire(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("while nobody reads: %v", err)
		}
		reading(t, b, r)
		<-time.After(2 * time.Minute)
		before := b.position()
		go func() {
			<-time.After(500 * time.Millisecond)
			if at := b.position(); !at.Equal(before) || b.Ticks().UnderWay != 1 {
				t.Errorf("while it is under way the position is %s, %s before", at, before)
			}
		}()
		id, outcome, err := b.Fire(t.Context())
		if err != nil || outcome.Verdict != cloudevents.Ack || id != "tick-asked-20000101T000200.000000000Z" {
			t.Errorf("%s, %v, %v", id, outcome, err)
		}
		ticks := b.Ticks()
		if next := ticks.Next.UTC().Format("15:04:05"); next != "00:05:00" || ticks.Last.ID != id || ticks.Last.Time.UTC().Format("15:04:05") != "00:02:01" {
			t.Errorf("then %+v", ticks)
		}
		<-time.After(4 * time.Minute)
		r.want(t, got{"00:02:00", "00:02:00", 1}, got{"00:05:00", "00:05:00", 1})
		asked, planned := r.all[0], r.all[1]
		if a, p := slices.Sorted(maps.Keys(asked.Metadata)), slices.Sorted(maps.Keys(planned.Metadata)); !cmp.Equal(a, p) {
			t.Errorf("metadata %v, of the schedule %v", a, p)
		}
		if asked.Event.ID() != id || asked.Event.Type() != planned.Event.Type() || asked.Event.Source() != planned.Event.Source() {
			t.Errorf("it is the event %s", asked.Event.JSON())
		}
	})
}

// TestFireIsTriedAgain as one of the schedule is.
func TestFireIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustOpen(t, environment(t), defaults("0 5 * * *"))
		r := &router{script: []cloudevents.Outcome{cloudevents.Retried(nil, time.Minute), {Verdict: cloudevents.Ack, Reason: "given up"}}}
		reading(t, b, r)
		if _, o, err := b.Fire(t.Context()); err != nil || o.Reason != "given up" {
			t.Errorf("%v, %v", o, err)
		}
		r.want(t, got{"00:00:00", "00:00:00", 1}, got{"00:01:00", "00:00:00", 2})
	})
}

// TestFireWhileOneIsUnderWay follows overlap, and is bounded.
func TestFireWhileOneIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		skip := defaults("0 5 * * *")
		skip.Overlap = "skip"
		alone, queue := mustOpen(t, environment(t), skip), mustOpen(t, environment(t), defaults("0 5 * * *"))
		reading(t, alone, &router{takes: time.Minute})
		reading(t, queue, &router{takes: time.Minute})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, b := range []*binding{alone, queue} {
			if id, o, err := b.Fire(short); err != nil || id == "" || o.Verdict != cloudevents.Retry {
				t.Errorf("one that goes on: %s, %v, %v", id, o, err)
			}
		}
		if _, _, err := alone.Fire(t.Context()); fault.KindOf(err) != fault.Conflict {
			t.Errorf("with skip: %v", err)
		}
		synctest.Wait() // the one of queue is under way and does not wait
		for range maxAsked {
			if _, _, err := queue.Fire(short); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := queue.Fire(short); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("one too many: %v", err)
		}
	})
}
