package cron

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const createTable = `CREATE TABLE cron_position (
	app TEXT NOT NULL, name TEXT NOT NULL,
	schedule TEXT NOT NULL, position INTEGER NOT NULL,
	PRIMARY KEY (app, name)) WITHOUT ROWID`

// ledger keeps how far a schedule was worked off.
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
		schedule: o.TimeZone + " " + o.Schedule,
	}, nil
}

// load returns the position that an earlier process reached with this very
// schedule; zero when there is none.
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

// save writes the position unless it stands there already.
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

// resume goes on where an earlier process stopped. Without one the schedule
// begins now, which is noted at once so that a stop before the first tick
// counts too.
func (b *binding) resume(ctx context.Context) error {
	position, err := b.ledger.load(ctx)
	if err != nil {
		return err
	}
	if position.IsZero() {
		position = b.clock.start()
	}
	b.last = position
	return b.ledger.save(ctx, position)
}
