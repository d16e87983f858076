package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
)

type valueKey struct{}

// newTestRound returns a round whose flow was opened with a value.
func newTestRound(t *testing.T) (*round, context.CancelFunc) {
	t.Helper()
	base, cut := context.WithCancelCause(context.WithValue(t.Context(), valueKey{}, "value"))
	cancel := func() { cut(errors.New("the base ended")) }
	f := newFlow(&Route{Lanes: 1}, silent())
	f.open(base)
	p := &passage{d: &cloudevents.Delivery{Body: []byte("x")}, flow: f}
	return p.newRound(), cancel
}

func TestRoundIsAContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, cancelBase := newTestRound(t)
		timed, cancel := context.WithTimeout(r, time.Hour)
		defer cancel()
		given, giveUp := context.WithCancel(r)
		giveUp()
		called, notCalled := false, false
		context.AfterFunc(r, func() { called = true })
		stop := context.AfterFunc(r, func() { notCalled = true })
		if !stop() || stop() {
			t.Error("stop of a function that has not run")
		}
		cancelBase()
		synctest.Wait()
		if r.Err() != nil || timed.Err() != nil || called {
			t.Error("it ended with the context it was opened with")
		}
		if r.Value(valueKey{}) != "value" || timed.Value(valueKey{}) != "value" {
			t.Error("values are lost")
		}
		if d := DeliveryFrom(timed); d == nil || string(d.Body) != "x" {
			t.Errorf("delivery %v", d)
		}
		if DeliveryFrom(t.Context()) != nil {
			t.Error("a delivery from nowhere")
		}
		if _, ok := r.Deadline(); ok || given.Err() == nil {
			t.Error("a deadline, or a child that does not end by itself")
		}
		r.end()
		r.end()
		synctest.Wait()
		<-r.Done()
		<-timed.Done()
		if cause := context.Cause(r); cause != context.Canceled {
			t.Errorf("it ended because %v, want its own end", cause)
		}
		if r.Err() != context.Canceled || timed.Err() != context.Canceled || !called || notCalled {
			t.Errorf("after the end: %v, %v, called %v, not called %v", r.Err(), timed.Err(), called, notCalled)
		}
	})
}

func TestRoundThatHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, cancelBase := newTestRound(t)
		defer cancelBase()
		r.end()
		<-r.Done()
		child, cancel := context.WithCancel(r)
		defer cancel()
		<-child.Done()
		called := false
		stop := r.AfterFunc(func() { called = true })
		synctest.Wait()
		if !called || stop() {
			t.Error("a function that came too late must run")
		}
	})
}

func TestRoundsOfOnePassageAreApart(t *testing.T) {
	t.Parallel()
	first, cancel := newTestRound(t)
	defer cancel()
	first.end()
	second := first.passage.newRound()
	if second == first || second.Err() != nil || roundFrom(second) != second {
		t.Error("the second round is not a fresh one")
	}
}
