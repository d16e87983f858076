package router

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// wellTime is how long a source that hands over nothing must have run for its next
// failure to count as the first again.
const wellTime = 30 * time.Second

// mostAway is the longest pause before a broken source is tried again, so that a
// broker that was away for a minute has its readers back within seconds.
const mostAway = 5 * time.Second

// supervisor keeps a source running until it is stopped. A source that returns
// or panics is run again after 200 ms, doubling to 5 s until it has handed
// something over: a connection that is cut again and again must not wait longer
// each time.
type supervisor struct {
	source Source
	emit   cloudevents.EmitFunc
	log    *slog.Logger
	tally  *tally
	ctx    context.Context
	stop   context.CancelFunc
	done   chan struct{}
	broken atomic.Bool
	worked atomic.Bool // it handed something over since it was started
}

// start runs the source until stop is called.
func (s *supervisor) start(base context.Context) {
	s.ctx, s.stop = context.WithCancel(base)
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		s.run()
	}()
}

func (s *supervisor) run() {
	failures := 0
	for s.ctx.Err() == nil {
		began := time.Now()
		err := guard(func() error { return s.source.Run(s.ctx, s.heard) })
		if s.ctx.Err() != nil {
			return
		}
		if s.worked.Swap(false) || time.Since(began) >= wellTime {
			failures = 0
		}
		failures++
		s.broke(err)
		// The wait ends with the context; the loop looks at it.
		_ = resilience.Sleep(s.ctx, resilience.Retry{Max: mostAway}.Delay(failures, fault.RetryAfter(err)))
	}
}

// broke notes why the source does not run; it is logged when that is news.
func (s *supervisor) broke(err error) {
	if err == nil {
		err = fault.New(fault.Unavailable, "run source: it ended by itself")
	}
	s.tally.setSource(err.Error())
	if !s.broken.Swap(true) {
		s.log.Error("source broken, it is tried again", "error", err)
	}
}

// heard is emit: a source that hands something over is well.
func (s *supervisor) heard(ctx context.Context, d *cloudevents.Delivery) error {
	if !s.worked.Load() { // it is asked for each event, and set once
		s.worked.Store(true)
	}
	if s.broken.Load() && s.broken.Swap(false) {
		s.tally.setSource("")
		s.log.Info("source works again")
	}
	return s.emit(ctx, d)
}

// wait waits until the source has returned, or for a grace time after ctx ends.
func (s *supervisor) wait(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	if !within(graceTime, s.done) {
		return fault.New(fault.Timeout, "stop source: it did not end with its context")
	}
	return nil
}
