package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	driver "github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	client "github.com/penstock-io/penstock/client/mysql"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

const (
	maxKey = 255
	tries  = 6 // of a transaction that others get in the way of
)

var (
	errETag  = fault.New(fault.Conflict, "the item has another ETag, or is not there")
	errFirst = fault.New(fault.Conflict, "the item is there already")
)

// row is a change as it will stand in the table.
type row struct {
	*state.Change
	at      int // in the changes
	value   string
	etag    string
	seconds any // to live; nil: for ever
}

// end is the last moment, about, that a TIMESTAMP can have.
func end() time.Time { return time.Date(2038, 1, 18, 0, 0, 0, 0, time.UTC) }

// rows makes them of changes, in the order of keys, so that two callers rarely
// wait for each other's rows; those of one key stay in their order. What cannot
// be saved is in errs.
func rows(changes []state.Change, errs []error) []row {
	out := make([]row, 0, len(changes))
	for i := range changes {
		r := row{Change: &changes[i], at: i}
		if errs[i] = r.fill(); errs[i] == nil {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b row) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func (r *row) fill() error {
	switch {
	case len(r.Key) > maxKey: // a lenient server would cut it off
		return fault.New(fault.Invalid, "the key has %d bytes with its prefix, and %d is the limit of this store", len(r.Key), maxKey)
	case r.Delete:
		return nil
	case r.TTL > 0 && time.Now().Add(r.TTL).After(end()):
		return fault.New(fault.Invalid, "the time to live is too long: this store can keep an item until %s", end().Format(time.DateOnly))
	case r.TTL > 0:
		r.seconds = int64(state.Whole(r.TTL) / time.Second)
	}
	r.etag, r.value = uuid.NewString(), string(r.Value)
	if r.Binary {
		r.value = `"` + base64.StdEncoding.EncodeToString(r.Value) + `"`
	}
	return nil
}

// Apply implements state.Driver: one transaction, in which those whose condition
// does not hold change nothing. One that the server refuses spoils it, and then
// they go one by one.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	errs := make([]error, len(changes))
	todo := rows(changes, errs)
	err := s.all(ctx, todo, errs)
	switch {
	case err == nil:
	case len(changes) == 1 || fault.KindOf(err) != fault.Invalid:
		return err
	default:
		for i := range todo {
			if err := s.all(ctx, todo[i:i+1], errs); err != nil {
				errs[todo[i].at] = err
			}
		}
	}
	return state.Batch(errs)
}

// all carries out all rows, or none when it returns an error, and notes which
// conditions did not hold.
func (s *store) all(ctx context.Context, todo []row, errs []error) error {
	do := func(on func(query string) *sql.Stmt) error {
		for i := range todo {
			r := &todo[i]
			held, err := s.carryOut(ctx, on, r)
			if err != nil {
				return err
			}
			if errs[r.at] = nil; !held {
				errs[r.at] = r.unmet()
			}
		}
		return nil
	}
	switch len(todo) {
	case 0:
		return nil
	case 1:
		return again(ctx, func() error { return do(func(query string) *sql.Stmt { return s.t.ready[query] }) })
	}
	return s.tx(ctx, do)
}

// Transact implements state.Transactor.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	errs := make([]error, len(changes))
	todo := rows(changes, errs)
	if err := state.Batch(errs); err != nil {
		return err
	}
	return s.tx(ctx, func(on func(query string) *sql.Stmt) error {
		for i := range todo {
			held, err := s.carryOut(ctx, on, &todo[i])
			if err != nil {
				return err
			}
			if !held {
				return todo[i].unmet()
			}
		}
		return nil
	})
}

// unmet is the error for a condition that did not hold.
func (r *row) unmet() error {
	if r.ETag != nil {
		return errETag
	}
	return errFirst
}

// tx runs fn in a transaction and commits it when fn returns nil.
func (s *store) tx(ctx context.Context, fn func(on func(query string) *sql.Stmt) error) error {
	return again(ctx, func() error {
		tx, err := s.db.Pool().BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := fn(func(query string) *sql.Stmt { return tx.StmtContext(ctx, s.t.ready[query]) }); err != nil {
			_ = tx.Rollback() // the error is the one to tell
			return err
		}
		return tx.Commit()
	})
}

// again runs fn, and a few times more after a deadlock, of which the server has
// undone one side.
func again(ctx context.Context, fn func() error) (err error) {
	for try := range tries {
		err = fn()
		if e, ok := errors.AsType[*driver.MySQLError](err); !ok || e.Number != 1213 || try == tries-1 {
			break
		}
		wait := time.NewTimer(time.Duration(1<<try) * 5 * time.Millisecond)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return client.Classify(err)
		}
	}
	return client.Classify(err)
}

// carryOut does one change and tells whether its condition held.
func (s *store) carryOut(ctx context.Context, on func(query string) *sql.Stmt, r *row) (held bool, err error) {
	run := func(query string, args ...any) (bool, error) {
		res, err := on(query).ExecContext(ctx, args...)
		if err != nil {
			return false, err
		}
		n, err := res.RowsAffected()
		return n > 0, err
	}
	values := []any{r.value, r.Binary, r.etag, r.seconds, r.Key}
	switch {
	case r.Delete && r.ETag != nil:
		return run(s.t.deleteETag, r.Key, *r.ETag)
	case r.Delete:
		_, err = run(s.t.delete, r.Key)
	case r.ETag != nil:
		return run(s.t.saveETag, append(values, *r.ETag)...)
	case r.FirstWrite:
		held, err = run(s.t.insert, values...)
		if e, ok := errors.AsType[*driver.MySQLError](err); ok && e.Number == 1062 {
			return run(s.t.revive, values...) // there is a row, which may have expired
		}
		return held, err
	default:
		_, err = run(s.t.save, values...)
	}
	return true, err
}
