package runtime

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/router"
)

// Times of a lease. Another replica takes over within leaseExpiry and leasePoll
// when the holder dies, and within leasePoll when it stops.
const (
	leaseExpiry = 5 * time.Second
	leaseRenew  = time.Second
	leasePoll   = time.Second
	// leaseSpare is how long before the end of a lease that cannot be renewed
	// reading ends: others may begin when it is over.
	leaseSpare = time.Second
)

// exclusive is a source that is read by one replica of the app at a time: the
// one that holds its lease.
type exclusive struct {
	router.Source
	name  string // of the lease: the input binding's
	find  func() (*lock.Store, error)
	owner string
	log   *slog.Logger
}

// sourceOf returns what a route reads from an input binding.
func (rs *routes) sourceOf(p *part) router.Source {
	store := p.binding.Exclusive()
	if store == "" {
		return p.binding
	}
	return &exclusive{
		Source: p.binding, name: "input/" + p.config.Name, owner: rand.Text(), log: rs.parts.log,
		find: func() (*lock.Store, error) { return rs.parts.lockOf(store) },
	}
}

// Run implements router.Source.
func (x *exclusive) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	for {
		s, err := x.find()
		if err != nil {
			return fault.Wrap(err, "read %s alone", x.name)
		}
		asked := time.Now()
		g, err := s.TryLock(ctx, x.name, x.owner, leaseExpiry)
		if err != nil && ctx.Err() == nil {
			return fault.Wrap(err, "read %s alone", x.name)
		}
		if g.Held {
			x.log.Info("Reading alone", "source", x.name, "store", s.Name())
			if err := x.read(ctx, s, asked, emit); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(leasePoll):
		}
	}
}

// read reads for as long as the lease is held, and lets go of it. The error is
// that of a source that ended by itself.
func (x *exclusive) read(ctx context.Context, s *lock.Store, asked time.Time, emit cloudevents.EmitFunc) (err error) {
	inner, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = x.Source.Run(inner, emit)
	}()
	x.hold(ctx, s, asked, ended)
	stop()
	<-ended
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseSpare)
	defer cancel()
	_, _ = s.Unlock(last, x.name, x.owner) // else it ends by itself
	return err
}

// hold renews the lease until it is lost, the source has ended or ctx has.
func (x *exclusive) hold(ctx context.Context, s *lock.Store, asked time.Time, ended <-chan struct{}) {
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for until := asked.Add(leaseExpiry - leaseSpare); ; {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case <-tick.C:
		}
		asked := time.Now()
		try, cancel := context.WithDeadline(ctx, until)
		st, err := s.Renew(try, x.name, x.owner, leaseExpiry)
		cancel()
		switch {
		case err == nil && st == lock.Done:
			until = asked.Add(leaseExpiry - leaseSpare)
		case err == nil || !time.Now().Before(until):
			x.log.Warn("Lease lost, reading ends here", "source", x.name, "store", s.Name(), "error", err)
			return
		}
	}
}
