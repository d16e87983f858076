package runtime

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
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

// lease is what the one replica holds that reads an exclusive input. How far the
// input has been read is its note.
type lease struct {
	name  string // of the lock: the input binding's
	owner string
	find  func() (*lock.Store, error)
}

// newLease makes the lease of an input; store tells which lock store it is in.
func (ps *parts) newLease(name string, store func() string) *lease {
	return &lease{
		name: "input/" + name, owner: rand.Text(),
		find: func() (*lock.Store, error) { return ps.lockOf(store()) },
	}
}

// Load implements component.Position.
func (l *lease) Load(ctx context.Context) (string, error) {
	s, err := l.find()
	if err != nil {
		return "", err
	}
	return s.Note(ctx, l.name)
}

// Save implements component.Position.
func (l *lease) Save(ctx context.Context, text string) error {
	s, err := l.find()
	if err != nil {
		return err
	}
	st, err := s.SetNote(ctx, l.name, l.owner, text)
	if err == nil && st != lock.Done {
		err = fault.New(fault.Conflict, "write position of %s: the lease is lost", l.name)
	}
	return err
}

// exclusive is a source that is read by one replica of the app at a time: the
// one that holds its lease.
type exclusive struct {
	router.Source
	*lease
	log *slog.Logger
}

// sourceOf returns what a route reads from an input binding.
func (rs *routes) sourceOf(p *part) router.Source {
	if p.binding.Exclusive() == "" {
		return p.binding
	}
	return &exclusive{Source: p.binding, lease: p.lease, log: rs.parts.log}
}

// Backlog is that of the input, whoever reads it.
func (x *exclusive) Backlog(ctx context.Context) (b cloudevents.Backlog, ok bool, err error) {
	if s, asked := x.Source.(backlogged); asked {
		return s.Backlog(ctx)
	}
	return b, false, nil
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

// read reads for as long as the lease is held, and lets go of it when what was
// read is settled: it is nobody else's before. The error is that of a source
// that ended by itself.
func (x *exclusive) read(ctx context.Context, s *lock.Store, asked time.Time, emit cloudevents.EmitFunc) (err error) {
	inner, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var under sync.WaitGroup
		err = x.Source.Run(inner, counted(emit, &under))
		under.Wait() // the route settles all that it took, at the latest when it stops
	}()
	x.hold(context.WithoutCancel(ctx), s, asked, ended)
	stop()
	<-ended
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseSpare)
	defer cancel()
	_, _ = s.Unlock(last, x.name, x.owner) // else it ends by itself
	return err
}

// counted is emit that tells what is under way.
func counted(emit cloudevents.EmitFunc, under *sync.WaitGroup) cloudevents.EmitFunc {
	return func(ctx context.Context, d *cloudevents.Delivery) error {
		under.Add(1)
		settle := d.Settle
		d.Settle = func(o cloudevents.Outcome) {
			settle(o)
			under.Done()
		}
		err := emit(ctx, d)
		if err != nil { // then nobody settles it
			under.Done()
		}
		return err
	}
}

// hold renews the lease until it is lost or ended is closed.
func (x *exclusive) hold(ctx context.Context, s *lock.Store, asked time.Time, ended <-chan struct{}) {
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for until := asked.Add(leaseExpiry - leaseSpare); ; {
		select {
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
