package deadletters

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/fault"
)

// The body comes last, so that what is listed is read without it. Times are
// milliseconds since 1970. The counts are kept by the file itself, so that
// several processes agree about them.
func schema() []string {
	return []string{
		`CREATE TABLE deadletters (
			seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
			app TEXT NOT NULL, pubsub TEXT NOT NULL, topic TEXT NOT NULL,
			event_id TEXT NOT NULL, event_type TEXT NOT NULL, event_source TEXT NOT NULL,
			reason TEXT NOT NULL, kind TEXT NOT NULL, route TEXT NOT NULL, target TEXT NOT NULL, origin TEXT NOT NULL,
			attempts INTEGER NOT NULL, replays INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL,
			metadata BLOB, body BLOB);
		CREATE TABLE deadletters_count (
			app TEXT NOT NULL, pubsub TEXT NOT NULL, topic TEXT NOT NULL,
			letters INTEGER NOT NULL, bytes INTEGER NOT NULL,
			PRIMARY KEY (app, pubsub, topic)) WITHOUT ROWID;
		CREATE TRIGGER deadletters_in AFTER INSERT ON deadletters BEGIN
			INSERT INTO deadletters_count VALUES (new.app, new.pubsub, new.topic, 1, new.size)
			ON CONFLICT (app, pubsub, topic) DO UPDATE SET letters = letters + 1, bytes = bytes + new.size;
		END;
		CREATE TRIGGER deadletters_out AFTER DELETE ON deadletters BEGIN
			UPDATE deadletters_count SET letters = letters - 1, bytes = bytes - old.size
			WHERE app = old.app AND pubsub = old.pubsub AND topic = old.topic;
		END;`,
	}
}

// open returns the file, opening it when that was not done. Without create, a
// file that does not exist is nil: there are no dead letters. Kind Unavailable,
// whatever it is, because mending the file mends the keeper.
func (k *Keeper) open(ctx context.Context, create bool) (*sqlite.DB, error) {
	k.opening.Lock()
	defer k.opening.Unlock()
	switch {
	case k.closed:
		return nil, fault.New(fault.Unavailable, "open dead letters: they are closed")
	case k.db != nil:
		return k.db, nil
	}
	if _, err := os.Stat(k.path); !create && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	db, err := sqlite.Open(ctx, k.o.Env, k.path)
	if err != nil {
		return nil, fault.As(fault.Unavailable, fault.Wrap(err, "open dead letters"))
	}
	if err = db.Migrate(ctx, "deadletters", schema()...); err == nil {
		err = k.count(ctx, db)
	}
	if err != nil {
		return nil, fault.As(fault.Unavailable, errors.Join(fault.Wrap(err, "open dead letters"), db.Close()))
	}
	k.db = db
	return db, nil
}

// Open opens the file, so that what is wrong with it shows before dead letters
// come.
func (k *Keeper) Open(ctx context.Context) error {
	_, err := k.open(ctx, true)
	return err
}

// count reads how much the file holds.
func (k *Keeper) count(ctx context.Context, db *sqlite.DB) error {
	var letters, bytes int64
	err := db.Read().QueryRowContext(ctx, "SELECT coalesce(sum(letters), 0), coalesce(sum(bytes), 0) FROM deadletters_count").Scan(&letters, &bytes)
	if err != nil {
		return sqlite.Classify(err)
	}
	k.letters.Store(letters)
	k.bytes.Store(bytes)
	return nil
}

func (k *Keeper) counts(db *sqlite.DB) (list []Count, err error) {
	rows, err := db.Read().Query(
		"SELECT pubsub, topic, letters FROM deadletters_count WHERE app = ? AND letters > 0 ORDER BY pubsub, topic", k.o.App)
	if err != nil {
		return nil, sqlite.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var c Count
		if err := rows.Scan(&c.PubSub, &c.Topic, &c.Letters); err != nil {
			return nil, sqlite.Classify(err)
		}
		list = append(list, c)
	}
	return list, sqlite.Classify(rows.Err())
}

const insert = `INSERT INTO deadletters (id, app, pubsub, topic, event_id, event_type, event_source, reason, kind, route, target,
	origin, attempts, replays, at, size, metadata, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING`

// put writes a letter unless it is there.
func (k *Keeper) put(ctx context.Context, l *Letter) error {
	db, err := k.open(ctx, true)
	if err != nil {
		return err
	}
	metadata, err := json.Marshal(l.Metadata)
	if err != nil {
		return fault.Wrap(err, "encode metadata")
	}
	l.Size = len(metadata) + len(l.Body)
	var written int64
	err = db.Write(ctx, func(tx *sql.Tx) error {
		st, err := db.Stmt(tx, insert)
		if err != nil {
			return err
		}
		res, err := st.Exec(l.ID, k.o.App, l.PubSub, l.Topic, l.EventID, l.EventType, l.EventSource, l.Reason, l.Kind, l.Route, l.Target,
			l.Origin, l.Attempts, l.Replays, l.Time.UnixMilli(), l.Size, metadata, l.Body)
		if err != nil {
			return err
		}
		written, err = res.RowsAffected()
		return err
	})
	if err == nil && written > 0 {
		k.letters.Add(1)
		k.bytes.Add(int64(l.Size))
	}
	return fault.Wrap(err, "keep dead letter")
}

// vacuumPages are given back to the disk with a removal.
const vacuumPages = 2000

// remove deletes letters in one transaction and returns how many there were.
func (k *Keeper) remove(ctx context.Context, db *sqlite.DB, seqs []int64) (int, error) {
	var letters int
	var bytes int64
	err := db.Write(ctx, func(tx *sql.Tx) error {
		letters, bytes = 0, 0
		st, err := db.Stmt(tx, "DELETE FROM deadletters WHERE seq = ? AND app = ? RETURNING size")
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			var size int64
			switch err := st.QueryRow(seq, k.o.App).Scan(&size); {
			case errors.Is(err, sql.ErrNoRows): // another was faster
			case err != nil:
				return err
			default:
				letters++
				bytes += size
			}
		}
		return nil
	})
	if err != nil {
		return 0, fault.Wrap(err, "remove dead letters")
	}
	k.letters.Add(-int64(letters))
	k.bytes.Add(-bytes)
	k.free()
	return letters, nil
}

// shrink gives free pages back to the disk, some at a time.
func (k *Keeper) shrink(ctx context.Context, db *sqlite.DB) error {
	for {
		var free int
		if err := ctx.Err(); err != nil {
			return fault.Wrap(err, "shrink dead letters")
		}
		err := db.Write(ctx, func(tx *sql.Tx) error {
			if err := tx.QueryRow("PRAGMA freelist_count").Scan(&free); err != nil || free < vacuumPages {
				return err
			}
			rows, err := tx.Query("PRAGMA incremental_vacuum(2000)") // it does a page for each row that is asked for
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return rows.Err()
		})
		if err != nil || free < vacuumPages {
			return fault.Wrap(err, "shrink dead letters")
		}
	}
}

// tried counts a replay that left its letter where it was.
func (k *Keeper) tried(ctx context.Context, db *sqlite.DB, seqs []int64) error {
	err := db.Write(ctx, func(tx *sql.Tx) error {
		st, err := db.Stmt(tx, "UPDATE deadletters SET replays = replays + 1 WHERE seq = ?")
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			if _, err := st.Exec(seq); err != nil {
				return err
			}
		}
		return nil
	})
	return fault.Wrap(err, "count replays")
}

const columns = `seq, id, pubsub, topic, event_id, event_type, event_source, reason, kind, route, target, origin, attempts, replays, at, size`

// scan reads a row of columns, and more after it.
func (l *Letter) scan(row interface{ Scan(...any) error }, more ...any) error {
	var at int64
	err := row.Scan(append([]any{
		&l.seq, &l.ID, &l.PubSub, &l.Topic, &l.EventID, &l.EventType, &l.EventSource, &l.Reason, &l.Kind,
		&l.Route, &l.Target, &l.Origin, &l.Attempts, &l.Replays, &at, &l.Size,
	}, more...)...)
	l.Time = time.UnixMilli(at).UTC()
	return err
}

// read returns one whole letter by a column that is unique, or nil.
func (k *Keeper) read(ctx context.Context, db *sqlite.DB, where string, value any) (*Letter, error) {
	l := &Letter{}
	var metadata []byte
	row := db.Read().QueryRowContext(ctx, "SELECT "+columns+", metadata, body FROM deadletters WHERE "+where+" = ? AND app = ?", value, k.o.App)
	err := l.scan(row, &metadata, &l.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(metadata, &l.Metadata)
	}
	if err != nil {
		return nil, fault.Wrap(sqlite.Classify(err), "read dead letter")
	}
	return l, nil
}
