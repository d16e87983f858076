package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/fault"
)

const (
	beatEvery = 500 * time.Millisecond
	beatTime  = 2 * time.Second // longest time of one
	// beatConns is more than one, for a dead connection is closed only after a while.
	beatConns = 8
	// staleAfter is when a process that could not say that it lives must expect to
	// be replaced, by its own clock: before deadAfter.
	staleAfter = 3 * time.Second
	cleanEvery = time.Minute
)

func (d *driver) migrate(ctx context.Context) error {
	return d.db.Migrate(ctx, "pubsub "+d.opts.TablePrefix, d.sql.probe, d.sql.schema...)
}

// enroll makes the row that stands for this process. What was held under an
// older one is somebody else's now.
func (d *driver) enroll(ctx context.Context) error {
	start := time.Now()
	var id int64
	if err := d.beats.QueryRow(ctx, d.sql.enroll).Scan(&id); err != nil {
		return fault.Wrap(client.Classify(err), "enroll process")
	}
	d.mu.Lock()
	d.process, d.lastBeat = id, start
	d.mu.Unlock()
	d.each(func(m *member) { m.forget(id) })
	return nil
}

// alive tells whether we may still think that nobody has replaced us.
func (d *driver) alive() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.lastBeat) < staleAfter
}

// beat says that we live, and buries those who do not.
func (d *driver) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.beatOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			if failing = err != nil; failing {
				d.log.Warn("broker is away: it is tried again and again", "database", d.db.Name(), "error", err)
			} else {
				d.log.Info("broker is back", "database", d.db.Name())
				d.reconnect()
			}
		}
	}
}

func (d *driver) beatOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	d.mu.Lock()
	process := d.process
	d.mu.Unlock()
	stale, start := !d.alive(), time.Now()
	b := &pgx.Batch{}
	b.Queue(d.sql.beat, process)
	b.Queue(d.sql.dead)
	answers := d.beats.SendBatch(ctx, b)
	tag, err := answers.Exec()
	var dead bool
	if err == nil {
		err = answers.QueryRow().Scan(&dead)
	}
	if e := answers.Close(); err == nil {
		err = e
	}
	switch {
	case client.Missing(err): // somebody dropped the tables
		return errors.Join(d.migrate(ctx), d.enroll(ctx))
	case err != nil:
		return client.Classify(err)
	case tag.RowsAffected() == 0:
		d.log.Warn("this process was taken for dead: what it held is delivered again", "database", d.db.Name())
		return d.enroll(ctx)
	}
	d.mu.Lock()
	d.lastBeat = start
	d.mu.Unlock()
	if stale {
		d.each(func(m *member) { m.arrived() })
	}
	if dead {
		return d.bury(ctx)
	}
	return nil
}

// bury removes processes that have not been heard of for too long and gives back
// what they held, in one transaction.
func (d *driver) bury(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, d.beats, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, d.sql.bury); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, d.sql.giveBack)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, d.sql.notify, "")
		return err
	})
	return fault.Wrap(client.Classify(err), "replace dead processes")
}

// resign removes our row and gives back what is still ours.
func (d *driver) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	d.mu.Lock()
	process := d.process
	d.mu.Unlock()
	if _, err := d.beats.Exec(ctx, d.sql.resign, process); err == nil {
		err = d.bury(ctx)
		if err == nil {
			return
		}
	}
	d.log.Warn("the database does not know that we leave: what was held is delivered again in some seconds", "database", d.db.Name())
}

// listen wakes members whose queue got something.
func (d *driver) listen(ctx context.Context) {
	wake := func(payload string) {
		ids := map[int64]bool{}
		for id := range strings.SplitSeq(payload, ",") {
			if n, err := strconv.ParseInt(id, 10, 64); err == nil {
				ids[n] = true
			}
		}
		d.each(func(m *member) {
			if len(ids) == 0 || ids[m.queueID()] {
				m.arrived()
			}
		})
	}
	failing := false
	d.db.Listen(ctx, client.Listener{
		Channels: []string{d.sql.channel},
		Notified: func(_, payload string) { wake(payload) },
		Up:       func() { failing = false; wake("") },
		Down: func(err error) {
			if !failing && !d.isClosed() {
				failing = true
				d.log.Warn("no notifications: subscriptions look every pollInterval", "database", d.db.Name(), "error", err)
			}
		},
	})
}

// clean removes messages that are worth nothing any more and that nobody reads.
func (d *driver) clean(ctx context.Context) {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.cleanOnce(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("expired messages are not removed", "database", d.db.Name(), "error", err)
		}
	}
}

func (d *driver) cleanOnce(ctx context.Context) error {
	found, err := d.db.Pool().Query(ctx, d.sql.expiredQueues)
	if err != nil {
		return client.Classify(err)
	}
	queues, err := pgx.CollectRows(found, pgx.RowTo[int64])
	if err != nil {
		return client.Classify(err)
	}
	for _, queue := range queues {
		for more := true; more && err == nil; {
			more, err = d.cleanQueue(ctx, queue)
		}
		if err != nil {
			return err
		}
	}
	_, err = d.db.Pool().Exec(ctx, d.sql.expiredOrphans)
	return client.Classify(err)
}

// cleanQueue removes expired messages that are ready, as an acknowledgement
// would.
func (d *driver) cleanQueue(ctx context.Context, queue int64) (more bool, err error) {
	err = d.db.Tx(ctx, func(tx pgx.Tx) error {
		more = false
		if _, err := tx.Exec(ctx, d.sql.lock, d.lockClass(), queue); err != nil {
			return err
		}
		found, err := tx.Query(ctx, d.sql.expired, queue)
		if err != nil {
			return err
		}
		type row struct {
			ID  int64
			Key []byte
		}
		gone, err := pgx.CollectRows(found, pgx.RowToStructByPos[row])
		if err != nil || len(gone) == 0 {
			return err
		}
		more = true
		ids, keys := make([]int64, 0, len(gone)), make([][]byte, 0, len(gone))
		for _, g := range gone {
			ids = append(ids, g.ID)
			if g.Key != nil {
				keys = append(keys, g.Key)
			}
		}
		for _, step := range []struct {
			text string
			args []any
		}{{d.sql.share, []any{ids}}, {d.sql.sweep, []any{ids}}, {d.sql.unblock, []any{queue, keys, d.opts.FetchSize}}, {d.sql.notify, []any{strconv.FormatInt(queue, 10)}}} {
			if _, err := tx.Exec(ctx, step.text, step.args...); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

// lockClass sets our advisory locks apart from those of others.
func (d *driver) lockClass() int32 { return int32(client.Lock("pubsub " + d.opts.TablePrefix)) }

// published wakes our own members before the database does.
func (d *driver) published(items []item) {
	topics := map[string]bool{}
	for i := range items {
		topics[items[i].topic] = true
	}
	d.each(func(m *member) {
		if topics[m.sub.Topic] {
			m.arrived()
		}
	})
}
