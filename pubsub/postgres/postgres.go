// Package postgres is the broker "pubsub.postgres": topics and consumer groups in
// the tables of a PostgreSQL database, for those who have a database and want no
// other server.
//
// It is opened through [Component]. A publish is one statement shared with all
// others that wait at that moment; it writes each message once, and a row for
// every group of its topic. A group begins when somebody subscribes for the first
// time: what is published to a topic without any group is gone.
//
// Promises: a publish is committed when it returns. A message is delivered until
// it is acknowledged or dropped, also after a crash of a process or the server,
// and its retries keep their time and count in the table. Any number of processes
// share a group. Messages of one key are delivered one at a time and in order,
// whoever reads them, and a key that is stuck holds back nobody else. A process
// that dies or hangs is replaced within five seconds by the clock of the
// database, and finds out that it was.
//
// Memory for each subscription: what the router holds, two fetchSize more and
// those behind them with the same key, 8192 messages and 16 MiB of bodies at
// most; then reading pauses. One message larger than that is still read.
package postgres

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/client/batch"
	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.postgres".
var Component = pubsub.Define("postgres", component.About{
	Summary: "Durable topics in tables of a PostgreSQL database",
	Ack:     "Deletes the message for its group, many in one transaction; a publish is committed when it returns",
	Order:   "In the order published; messages of one key one at a time, across retries, restarts and processes",
	Limits: "A message must fit into a bytea (1 GiB, much less is wise); topics without a subscriber keep nothing; there are no wildcards. " +
		"A group that nobody reads keeps its messages: delete its row in the table of queues, and they go with it",
	Scale: "Any number of processes share a group; the work of one that dies is taken over within 5 s",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.postgres
  version: v1
  metadata:
    - name: connectionString
      value: postgres://app@localhost:5432/app
`,
}, open)

type options struct {
	client.Options
	TablePrefix  string        `meta:"tablePrefix"  default:"penstock_pubsub_" doc:"What the names of the four tables and of the channel that wakes readers begin with: lower-case letters, digits and _. Components with the same prefix in one database are one bus."`
	FetchSize    int           `meta:"fetchSize"    default:"256"              doc:"Most messages that one look at the table claims; from 1 to 4096. Fewer share slow work better."`
	PollInterval time.Duration `meta:"pollInterval" default:"2s"               doc:"How often an idle subscription looks without having been notified: the safety net where LISTEN does not work. From 100ms to 1m."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if !regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`).MatchString(o.TablePrefix) {
		errs = append(errs, component.OptionErrorf("tablePrefix", "must be 1 to 40 lower-case letters, digits and _, and not begin with a digit"))
	}
	if o.FetchSize < 1 || o.FetchSize > 4096 {
		errs = append(errs, component.OptionErrorf("fetchSize", "must be from 1 to 4096"))
	}
	if o.PollInterval < 100*time.Millisecond || o.PollInterval > time.Minute {
		errs = append(errs, component.OptionErrorf("pollInterval", "must be from 100ms to 1m"))
	}
	return errors.Join(errs...)
}

var errClosed = fault.New(fault.Unavailable, "the broker is closed")

// driver is one component's use of the tables.
type driver struct {
	db        *client.DB
	beats     *pgxpool.Pool // a heartbeat waits for nobody
	opts      options
	log       *slog.Logger
	sql       queries
	publishes *batch.Writer[item]

	stop    context.CancelFunc // of heartbeats, the listener and the cleaner
	running sync.WaitGroup     // those
	cut     context.CancelFunc // of the members' statements
	loops   sync.WaitGroup     // of the members
	calls   sync.WaitGroup     // of Subscribe

	mu       sync.Mutex
	closed   bool
	process  int64     // the row that stands for us
	lastBeat time.Time // when the last one that worked was sent
	numbers  int32
	members  map[*member]struct{}
	cancels  map[*context.CancelFunc]struct{} // of running subscriptions
	loopCtx  context.Context
	conns    context.Context // ends when connections made so far are given up
	hangUp   context.CancelFunc
}

func open(ctx context.Context, env component.Env, o options) (pubsub.Driver, error) {
	db, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	d := &driver{
		db: db, opts: o, log: env.Logger, sql: newQueries(o.TablePrefix),
		members: map[*member]struct{}{}, cancels: map[*context.CancelFunc]struct{}{},
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.beats, err = db.Apart(ctx, beatConns); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	first, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := d.begin(first); err != nil {
		d.beats.Close()
		return nil, errors.Join(fault.Wrap(err, "open broker"), db.Close())
	}
	d.publishes = batch.NewWriter(ctx, batch.Options[item]{
		Write: d.write, Most: publishMost, Bytes: publishBytes, Size: func(it item) int { return len(it.m.Data) },
	})
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.loopCtx, d.cut = context.WithCancel(context.WithoutCancel(ctx))
	d.conns, d.hangUp = context.WithCancel(d.loopCtx)
	d.running.Go(func() { d.beat(alive) })
	d.running.Go(func() { d.listen(alive) })
	d.running.Go(func() { d.clean(alive) })
	return d, nil
}

// begin makes the tables and our row, and gives back what nobody holds any more.
func (d *driver) begin(ctx context.Context) error {
	if err := d.migrate(ctx); err != nil {
		return err
	}
	if err := d.enroll(ctx); err != nil {
		return err
	}
	return d.bury(ctx)
}

// Features implements pubsub.Featured.
func (d *driver) Features() pubsub.Features {
	return pubsub.Features{TTL: true, Delay: true, GiveBack: true}
}

// Prepare implements pubsub.Preparer.
func (d *driver) Prepare(ctx context.Context, s pubsub.Subscription) error {
	_, err := d.queue(ctx, s.Topic, s.Group)
	return err
}

// queue finds or makes what waits for a group of a topic.
func (d *driver) queue(ctx context.Context, topic, group string) (id int64, err error) {
	if err := usable(topic); err != nil {
		return 0, err
	}
	if err := usable(group); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	for range 2 { // another process may take it away in between
		if err = d.db.Pool().QueryRow(ctx, d.sql.findQueue, topic, group).Scan(&id); err == nil {
			return id, nil
		}
		if _, err := d.db.Pool().Exec(ctx, d.sql.makeQueue, topic, group); err != nil {
			return 0, fault.Wrap(client.Classify(err), "make group %q of topic %q", group, topic)
		}
	}
	err = d.db.Pool().QueryRow(ctx, d.sql.findQueue, topic, group).Scan(&id)
	return id, fault.Wrap(client.Classify(err), "join group %q of topic %q", group, topic)
}

// usable tells whether the database can hold a name.
func usable(name string) error {
	if !utf8.ValidString(name) || len(name) > maxName {
		return fault.New(fault.Invalid, "name %.60q: it must be UTF-8 and at most %d bytes", name, maxName)
	}
	for i := range len(name) {
		if name[i] == 0 {
			return fault.New(fault.Invalid, "name %.60q: it must not hold a zero byte", name)
		}
	}
	return nil
}

// statementTime is how long a statement may take: a connection that is dead
// without a word is given up then at the latest.
const statementTime = 10 * time.Second

// do runs statements, which end early when the connections are found dead.
func (d *driver) do(ctx context.Context, run func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, min(d.opts.Timeout, statementTime))
	defer cancel()
	d.mu.Lock()
	conns := d.conns
	d.mu.Unlock()
	defer context.AfterFunc(conns, cancel)()
	err := run(limited)
	if err != nil && conns.Err() != nil && ctx.Err() == nil {
		return fault.New(fault.Unavailable, "the connection is dead: %w", err)
	}
	return client.Classify(err)
}

// reconnect gives up connections that may be dead without a word: a heartbeat
// timed out, and the next one works on a new one.
func (d *driver) reconnect() {
	d.mu.Lock()
	d.hangUp()
	d.conns, d.hangUp = context.WithCancel(d.loopCtx)
	d.mu.Unlock()
	d.db.Pool().Reset()
}

// maxName keeps names within what an index takes.
const maxName = 1000

// Subscribe implements pubsub.Driver.
func (d *driver) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !d.enter(&cancel) {
		return errClosed
	}
	defer d.exit(&cancel)
	err := d.serve(ctx, s, emit)
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
	d.calls.Add(1)
	d.cancels[cancel] = struct{}{}
	return true
}

func (d *driver) exit(cancel *context.CancelFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.cancels, cancel)
	d.calls.Done()
}

func (d *driver) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// serve hands out messages until ctx ends.
func (d *driver) serve(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	queue, err := d.queue(ctx, s.Topic, s.Group)
	if err != nil {
		return err
	}
	m := d.join(s, queue)
	defer m.leave()
	for ctx.Err() == nil {
		e := m.next()
		if e == nil {
			select {
			case <-ctx.Done():
			case <-m.wake:
			}
			continue
		}
		if err := emit(ctx, &e.Delivery); err != nil {
			e.settle(cloudevents.Left("not taken"))
			if ctx.Err() == nil {
				return fault.Wrap(err, "hand over message")
			}
		}
	}
	return nil
}

// join makes a member and starts its loop.
func (d *driver) join(s pubsub.Subscription, queue int64) *member {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.numbers++
	m := newMember(d, s, queue, d.numbers, d.process)
	d.members[m] = struct{}{}
	d.loops.Go(func() {
		m.run(d.loopCtx)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.members, m)
	})
	return m
}

// Close ends the subscriptions, writes what was settled before and gives back
// the rest.
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
	err := waitFor(ctx, &d.calls)
	d.each(func(m *member) { m.shut() })
	err = errors.Join(err, d.publishes.Close(ctx))
	if e := waitFor(ctx, &d.loops); e != nil {
		err = errors.Join(err, e)
	}
	d.cut()
	d.loops.Wait()
	d.stop()
	d.running.Wait()
	d.resign(ctx)
	d.beats.Close()
	return errors.Join(err, d.db.Close())
}

func (d *driver) each(do func(*member)) {
	d.mu.Lock()
	list := make([]*member, 0, len(d.members))
	for m := range d.members {
		list = append(list, m)
	}
	d.mu.Unlock()
	for _, m := range list {
		do(m)
	}
}

// waitFor waits for the group until ctx ends.
func waitFor(ctx context.Context, wg *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close: wait for subscriptions")
	}
}
