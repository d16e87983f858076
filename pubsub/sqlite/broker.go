package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Times in the tables are milliseconds since 1970. A queue is what waits for
// one group of a topic; the group "" stands for one that is yet to come. The
// body of a message is there once, whatever number of groups wait for it.
func schema() []string {
	return []string{
		`CREATE TABLE pubsub_queues (
			id INTEGER PRIMARY KEY AUTOINCREMENT,
			topic TEXT NOT NULL, consumer TEXT NOT NULL,
			seen INTEGER NOT NULL,
			owner TEXT NOT NULL DEFAULT '', leased INTEGER NOT NULL DEFAULT 0, lease INTEGER NOT NULL DEFAULT 0,
			UNIQUE (topic, consumer))`,
		`CREATE TABLE pubsub_messages (
			id INTEGER PRIMARY KEY AUTOINCREMENT,
			created INTEGER NOT NULL, expires INTEGER NOT NULL,
			key TEXT NOT NULL, metadata BLOB, body BLOB)`,
		`CREATE INDEX pubsub_expires ON pubsub_messages (expires) WHERE expires > 0`,
		`CREATE TABLE pubsub_pending (
			queue INTEGER NOT NULL, id INTEGER NOT NULL,
			due INTEGER NOT NULL, attempt INTEGER NOT NULL,
			PRIMARY KEY (queue, id)) WITHOUT ROWID`,
		`CREATE INDEX pubsub_due ON pubsub_pending (queue, due) WHERE due > 0`,
		`CREATE INDEX pubsub_wild ON pubsub_queues (topic) WHERE substr(topic, -1) = '*'`,
		`ALTER TABLE pubsub_messages ADD COLUMN topic TEXT NOT NULL DEFAULT ''`,
	}
}

const pollInterval = time.Second

type queueName struct{ topic, group string }

// broker is one file in this process, whatever number of components use it.
type broker struct {
	db    *client.DB
	log   *slog.Logger
	opts  options // of the component that opened it
	owner string  // of leases
	alive *aliveLock
	out   *outbox
	reads reads

	stop    context.CancelFunc // of the goroutines
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	queues map[queueName]*queue

	countMu sync.Mutex
	waiting map[int64]int64 // messages by queue, other processes' since the last count

	// Only for functions that the file's writer runs, one at a time.
	seen struct {
		tx      *sql.Tx
		targets map[string][]target
	}
}

func openBroker(ctx context.Context, env component.Env, path string, o options) (*broker, error) {
	db, err := client.Open(ctx, env, path) // a hold of its own: components come and go
	if err != nil {
		return nil, err
	}
	b := &broker{db: db, log: env.Logger, opts: o, owner: rand.Text(), queues: map[queueName]*queue{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if b.reads, err = prepareReads(ctx, db.Read()); err != nil {
		return nil, errors.Join(err, b.alive.close(), db.Close())
	}
	b.out = newOutbox(b)
	ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	b.running.Go(func() { b.out.run(ctx) })
	b.running.Go(func() { b.poll(ctx) })
	b.running.Go(func() { b.clean(ctx) })
	return b, nil
}

// prepare makes the tables, and takes groups away from processes that died.
func (b *broker) prepare(ctx context.Context) error {
	if err := b.db.Migrate(ctx, "pubsub", schema()...); err != nil {
		return err
	}
	alive, alone, err := lockAlive(b.db.Path() + "-alive")
	if err != nil {
		return err
	}
	b.alive = alive
	if alone {
		err = b.db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.Exec("UPDATE pubsub_queues SET owner = '' WHERE owner <> ''")
			return err
		})
	}
	if err == nil {
		err = alive.share(ctx)
	}
	if err == nil {
		err = b.count(ctx)
	}
	if err != nil {
		return errors.Join(err, alive.close())
	}
	return nil
}

// close writes what was settled, gives the groups up and closes the file.
func (b *broker) close() error {
	b.mu.Lock()
	b.closed = true
	for _, q := range b.queues {
		q.shut()
	}
	b.mu.Unlock()
	b.stop()
	b.running.Wait()
	b.reads.close()
	return errors.Join(b.alive.close(), b.db.Close())
}

// publish writes the batch for every group of the topic.
func (b *broker) publish(ctx context.Context, topic string, batch []pubsub.Message, o options) error {
	rows := make([]row, len(batch))
	now := time.Now()
	delayed := false
	for i := range batch {
		rows[i] = newRow(&batch[i], now)
		delayed = delayed || rows[i].due > 0
	}
	var targets []target
	err := b.db.Write(ctx, func(tx *sql.Tx) (err error) {
		targets, err = insertion{b: b, tx: tx, topic: topic, now: millis(now), opts: o}.run(rows)
		if err != nil {
			b.seen.tx = nil // what it found out is undone
		}
		return err
	})
	if err != nil {
		return fault.Wrap(err, "write to topic %q", topic)
	}
	for _, t := range targets {
		b.add(t.id, len(rows))
	}
	b.wake(topic, delayed)
	return nil
}

// wake tells the queues of a topic, or all, that there may be more.
func (b *broker) wake(topic string, delayed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, q := range b.queues {
		if topic == "" || pubsub.Matches(name.topic, topic) {
			q.arrived(delayed)
		}
	}
}

// poll looks for messages that other processes have published.
func (b *broker) poll(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var seq int64
		err := b.db.Read().QueryRow("SELECT seq FROM sqlite_sequence WHERE name = 'pubsub_messages'").Scan(&seq)
		if err == nil && seq != last { // a failing file shows where it is read and written
			last = seq
			b.wake("", true)
		}
	}
}

// join finds or makes the group and counts a member in.
func (b *broker) join(ctx context.Context, s pubsub.Subscription) (*queue, error) {
	var id int64
	err := b.db.Write(ctx, func(tx *sql.Tx) (err error) {
		id, err = b.ensureGroup(tx, s.Topic, s.Group)
		return err
	})
	if err != nil {
		return nil, fault.Wrap(err, "join group %q of topic %q", s.Group, s.Topic)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	name := queueName{s.Topic, s.Group}
	q := b.queues[name]
	if q == nil || q.id != id {
		q = newQueue(b, id, name)
		b.queues[name] = q
		qctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		q.stop = stop
		b.running.Go(func() { q.run(qctx) })
	}
	q.join(s.Key)
	return q, nil
}

// ensureGroup returns the id of the group's queue. The first group of a topic
// takes over what was kept for it.
func (b *broker) ensureGroup(tx *sql.Tx, topic, group string) (id int64, err error) {
	b.seen.tx = nil
	now := millis(time.Now())
	err = tx.QueryRow(`UPDATE pubsub_queues SET seen = ? WHERE topic = ? AND consumer = ? RETURNING id`,
		now, topic, group).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = tx.QueryRow(`UPDATE pubsub_queues SET seen = ?, consumer = ? WHERE topic = ? AND consumer = '' RETURNING id`,
		now, group, topic).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = tx.QueryRow(`INSERT INTO pubsub_queues (topic, consumer, seen) VALUES (?, ?, ?) RETURNING id`,
		topic, group, now).Scan(&id)
	if err == nil && pubsub.Wildcard(topic) {
		err = b.claim(tx, id, topic)
	}
	return id, err
}

// count finds out how much is waiting, for the bound of the backlog.
func (b *broker) count(ctx context.Context) error {
	rows, err := b.db.Read().QueryContext(ctx, "SELECT queue, count(*) FROM pubsub_pending GROUP BY queue")
	if err != nil {
		return client.Classify(err)
	}
	defer rows.Close()
	waiting := map[int64]int64{}
	for rows.Next() {
		var id, n int64
		if err := rows.Scan(&id, &n); err != nil {
			return client.Classify(err)
		}
		waiting[id] = n
	}
	b.countMu.Lock()
	defer b.countMu.Unlock()
	b.waiting = waiting
	return client.Classify(rows.Err())
}

func (b *broker) add(queue int64, n int) {
	b.countMu.Lock()
	defer b.countMu.Unlock()
	b.waiting[queue] = max(b.waiting[queue]+int64(n), 0)
}

func (b *broker) leave(q *queue) { q.leave() }

// retire takes a queue that nobody uses out of the list, and tells whether it
// did.
func (b *broker) retire(q *queue) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !q.idle() {
		return false
	}
	if b.queues[q.name] == q {
		delete(b.queues, q.name)
	}
	return true
}

// abandon gives back what a closed component has under way.
func (b *broker) abandon(d *driver) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.queues {
		q.abandon(d)
	}
}

func millis(t time.Time) int64 { return (t.UnixNano() + 999_999) / 1_000_000 }
