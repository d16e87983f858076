// Package sqlite is the broker "pubsub.sqlite": topics and consumer groups in
// one SQLite file, durable on one machine, without any server.
//
// It is opened through [Component]. A publish is one transaction shared with
// all others that wait at that moment, and returns when it is on the disk. A
// group gets every message published after it was first seen; what is
// published to a topic without any group is kept for the first one to come. A
// subscription to a topic that ends in * is a group of its own for the messages
// of every topic that it matches.
//
// Promises: nothing acknowledged to a publisher is lost by a killed process or
// machine. A message is delivered until it is acknowledged or dropped, also
// after a crash, and its attempts are counted on disk. Messages of one key are
// delivered one at a time and in order, whatever happens in between; a key
// that is stuck, with any number of messages behind it, holds back nobody
// else. Delays and expiry survive a restart. Several processes may use the
// file: one of them serves a group at a time, and another takes over within a
// second when that one ends, within redeliverInterval when it dies or hangs. A
// process that finds itself alone on the file, as after a crash, goes on at
// once.
//
// Memory for each group that is read: some 400 messages of together 8 MiB read
// ahead, 256 messages remembered behind a held key and 16384 behind all (4 MiB
// of bodies among them; what is further back is found again in the file), 10000
// keys waiting for a retry, 8192 outcomes not yet written. At these bounds reading pauses.
// One message larger than that is still read.
package sqlite

import (
	"context"
	"errors"
	"sync"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.sqlite".
var Component = pubsub.Define("sqlite", component.About{
	Summary: "Durable topics in one SQLite file, for one machine and without a server",
	Ack:     "Deletes the message for its group in a transaction shared with others; a publish is on the disk when it returns",
	Order:   "In the order published; messages of one key one at a time, across retries and restarts",
	Limits:  "maxBacklog (1000000) messages waiting for each group; publishing beyond fails with 429",
	Scale:   "One process at a time serves a group; others on the same file may publish, and take over when it ends",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.sqlite
  version: v1
  metadata:
    - name: connectionString
      value: ./data/bus.db
`,
}, open)

type options struct {
	ConnectionString  string            `meta:"connectionString"  alias:"path"          doc:"The file: a path or file:path?params; penstock.db in the data folder when empty." example:"./data/bus.db"`
	Timeout           time.Duration     `meta:"timeout"           default:"20s"         doc:"Longest wait of a publish for its turn to be written."`
	BusyTimeout       time.Duration     `meta:"busyTimeout"       default:"5s"          doc:"Longest wait for another process that writes to the file."`
	RedeliverInterval time.Duration     `meta:"redeliverInterval" default:"30s"         doc:"How long a process that hangs keeps its groups before another takes over; at least 1s."`
	CleanupInterval   time.Duration     `meta:"cleanupInterval"   default:"1m"          doc:"How often expired messages are removed and free space is given back."`
	Retention         time.Duration     `meta:"retention"         default:"24h"         doc:"How long messages of a topic without any group are kept for the first one; 0 drops them at once."`
	GroupRetention    time.Duration     `meta:"groupRetention"    default:"0s"          doc:"A group that nobody has read for this long is deleted with its messages; 0 keeps it for ever."`
	MaxBacklog        int               `meta:"maxBacklog"        default:"1000000"     doc:"Most messages waiting for a group; publishing beyond fails. Without any group the oldest go."`
	DisableWAL        component.Ignored `meta:"disableWAL" doc:"Dapr's SQLite components have it; the write-ahead log is always on here."`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	for name, d := range map[string]time.Duration{
		"timeout": o.Timeout, "cleanupInterval": o.CleanupInterval, "redeliverInterval": o.RedeliverInterval,
	} {
		if d < minInterval {
			errs = append(errs, component.OptionErrorf(name, "must be at least %s", minInterval))
		}
	}
	if o.MaxBacklog < 1 {
		errs = append(errs, component.OptionErrorf("maxBacklog", "must be at least 1"))
	}
	return errors.Join(errs...)
}

const minInterval = time.Second

var errClosed = fault.New(fault.Unavailable, "the broker is closed")

// driver is one component's use of a broker.
type driver struct {
	b       *broker
	opts    options
	release func() error
	members sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	cancels map[*context.CancelFunc]struct{} // of running subscriptions
}

func open(ctx context.Context, env component.Env, o options) (pubsub.Driver, error) {
	if env.Shared == nil {
		env.Shared = &component.Shared{}
	}
	db, err := client.Open(ctx, env, client.WithBusyTimeout(env, o.ConnectionString, o.BusyTimeout))
	if err != nil {
		return nil, err
	}
	b, release, err := component.Share(env.Shared, "pubsub.sqlite:"+db.Path(), func() (*broker, func() error, error) {
		b, err := openBroker(ctx, env, db.Path(), o)
		if err != nil {
			return nil, nil, err
		}
		return b, b.close, nil
	})
	if err != nil {
		_ = db.Close() // the first error says more
		return nil, err
	}
	return &driver{
		b: b, opts: o, cancels: map[*context.CancelFunc]struct{}{},
		release: func() error { return errors.Join(release(), db.Close()) },
	}, nil
}

// Features implements pubsub.Featured.
func (d *driver) Features() pubsub.Features {
	return pubsub.Features{TTL: true, Delay: true, GiveBack: true, Wildcards: true}
}

// Publish writes the whole batch or nothing of it.
func (d *driver) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	if d.isClosed() {
		return errClosed
	}
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	return d.b.publish(ctx, topic, batch, d.opts)
}

func (d *driver) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// Subscribe implements pubsub.Driver.
func (d *driver) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !d.enter(&cancel) {
		return errClosed
	}
	defer d.exit(&cancel)
	q, err := d.b.join(ctx, s)
	if err == nil {
		err = d.serve(ctx, q, emit)
		d.b.leave(q)
	}
	switch {
	case d.isClosed():
		return errClosed
	case ctx.Err() != nil:
		return nil
	}
	return err
}

func (d *driver) enter(cancel *context.CancelFunc) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.members.Add(1)
	d.cancels[cancel] = struct{}{}
	return true
}

func (d *driver) exit(cancel *context.CancelFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.cancels, cancel)
	d.members.Done()
}

// serve hands out messages until ctx ends or the queue cannot be read.
func (d *driver) serve(ctx context.Context, q *queue, emit cloudevents.EmitFunc) error {
	for ctx.Err() == nil {
		x, failed := q.next(d)
		if x == nil {
			select {
			case <-ctx.Done():
			case <-q.wake:
			case <-failed:
				return q.failure()
			}
			continue
		}
		if err := emit(ctx, &x.Delivery); err != nil {
			x.settle(cloudevents.Left("not taken"))
			if ctx.Err() == nil {
				return fault.Wrap(err, "hand over message")
			}
			continue
		}
		x.taken()
	}
	return nil
}

// Close ends the subscriptions, gives back what they had under way, and writes
// what was settled before. It waits for Subscribe calls until ctx ends.
func (d *driver) Close(ctx context.Context) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	for cancel := range d.cancels {
		(*cancel)()
	}
	d.mu.Unlock()
	var err error
	if !waitFor(ctx, &d.members) {
		err = fault.Wrap(ctx.Err(), "close: wait for subscribers")
	}
	d.b.abandon(d)
	return errors.Join(err, d.release())
}

// waitFor waits for the group until ctx ends.
func waitFor(ctx context.Context, wg *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
