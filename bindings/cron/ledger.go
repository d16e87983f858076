package cron

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const createTable = `CREATE TABLE cron_position (
	app TEXT NOT NULL, name TEXT NOT NULL,
	schedule TEXT NOT NULL, position INTEGER NOT NULL,
	PRIMARY KEY (app, name)) WITHOUT ROWID`

// keeper keeps how far a schedule was worked off. Position is zero when there is
// none of this very schedule.
type keeper interface {
	load(ctx context.Context) (position time.Time, err error)
	save(ctx context.Context, position time.Time) error
	close() error
}

// text names a schedule: a position of another one means nothing.
func (o options) text() string { return o.TimeZone + " " + o.Schedule }

// ledger keeps it in SQLite, for the processes that come after this one.
type ledger struct {
	db                  *sqlite.DB
	app, name, schedule string
	saved               time.Time
}

func openLedger(ctx context.Context, db *sqlite.DB, env component.Env, o options) (*ledger, error) {
	if err := db.Migrate(ctx, "bindings.cron", createTable); err != nil {
		return nil, err
	}
	return &ledger{
		db: db, app: env.Namespace + "/" + env.AppID, name: env.Name,
		schedule: o.text(),
	}, nil
}

func (l *ledger) load(ctx context.Context) (time.Time, error) {
	var nanos int64
	err := l.db.Read().QueryRowContext(ctx,
		"SELECT position FROM cron_position WHERE app = ? AND name = ? AND schedule = ?",
		l.app, l.name, l.schedule).Scan(&nanos)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fault.Wrap(sqlite.Classify(err), "read position of schedule")
	}
	l.saved = time.Unix(0, nanos).UTC()
	return l.saved, nil
}

func (l *ledger) save(ctx context.Context, position time.Time) error {
	if position.Equal(l.saved) {
		return nil
	}
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO cron_position (app, name, schedule, position) VALUES (?, ?, ?, ?)
			ON CONFLICT (app, name) DO UPDATE SET schedule = excluded.schedule, position = excluded.position`,
			l.app, l.name, l.schedule, position.UnixNano())
		return err
	})
	if err != nil {
		return fault.Wrap(err, "write position of schedule")
	}
	l.saved = position
	return nil
}

func (l *ledger) close() error { return l.db.Close() }

// leased keeps it with the lease of an exclusive input, for all replicas.
type leased struct {
	at       component.Position
	schedule string
	logger   *slog.Logger
	saved    time.Time
}

func (l *leased) load(ctx context.Context) (time.Time, error) {
	l.saved = time.Time{}
	text, err := l.at.Load(ctx)
	if err != nil {
		return time.Time{}, fault.Wrap(err, "read position of schedule")
	}
	at, schedule, _ := strings.Cut(text, " ")
	position, err := time.Parse(time.RFC3339Nano, at)
	if err != nil || schedule != l.schedule {
		return time.Time{}, nil
	}
	l.saved = position
	return position, nil
}

// save tries until ctx ends, which is when the lease is over: whoever takes it
// then would fire again what was not saved.
func (l *leased) save(ctx context.Context, position time.Time) error {
	if position.Equal(l.saved) {
		return nil
	}
	for first := true; ; first = false {
		err := l.at.Save(ctx, position.UTC().Format(time.RFC3339Nano)+" "+l.schedule)
		if err == nil {
			l.saved = position
			return nil
		}
		if !fault.Retriable(err) || ctx.Err() != nil {
			return fault.Wrap(err, "write position of schedule")
		}
		if first {
			l.logger.Warn("Position not written, no tick before it is", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(savePause):
		}
	}
}

func (l *leased) close() error { return nil }

// resume goes on where the schedule was left, be it by an earlier process, by
// another replica or by this one when that could not save it. Without any the
// schedule begins now, which is noted at once so that a stop before the first
// tick counts too.
func (b *binding) resume(ctx context.Context) error {
	position, err := b.keeper.load(ctx)
	if err != nil {
		return err
	}
	if own := b.position(); own.After(position) {
		position = own
	}
	if position.IsZero() {
		position = b.clock.start()
	}
	b.mu.Lock()
	b.waiting, b.left = nil, nil // they are due again if nobody else has had them
	b.mu.Unlock()
	b.last = position
	return b.keeper.save(ctx, position)
}
