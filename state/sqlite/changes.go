package sqlite

import (
	"context"
	"database/sql"
	"encoding/base64"
	"time"

	"github.com/google/uuid"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// timeForm is how SQLite writes CURRENT_TIMESTAMP.
const timeForm = "2006-01-02 15:04:05"

var (
	errETag  = fault.New(fault.Conflict, "the item has another ETag, or is not there")
	errFirst = fault.New(fault.Conflict, "the item is there already")
)

// Apply implements state.Driver: all changes in one commit. One whose condition
// does not hold has changed nothing, so it does not hinder the others.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	if len(changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	errs := make([]error, len(changes))
	rows := rowsOf(changes)
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for i := range rows {
			held, err := s.carryOut(tx, &rows[i])
			if err != nil {
				return err
			}
			if errs[i] = nil; !held {
				errs[i] = rows[i].unmet()
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return state.Batch(errs)
}

// Transact implements state.Transactor.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	rows := rowsOf(changes)
	var unmet error
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		unmet = nil
		for i := range rows {
			held, err := s.carryOut(tx, &rows[i])
			switch {
			case err != nil:
				return err
			case !held && i == 0:
				// Nothing is changed yet, so those in the same commit need not
				// run again, as an error would make them.
				unmet = rows[i].unmet()
				return nil
			case !held:
				return rows[i].unmet()
			}
		}
		return nil
	})
	if err == nil {
		err = unmet
	}
	return err
}

// row is a change as it will stand in the table.
type row struct {
	*state.Change
	value   string
	etag    string
	expires any // text, or nil
}

// rowsOf does what needs no transaction before there is one.
func rowsOf(changes []state.Change) []row {
	now := time.Now().UTC()
	rows := make([]row, len(changes))
	for i := range changes {
		c := &changes[i]
		rows[i].Change = c
		if c.Delete {
			continue
		}
		rows[i].etag = uuid.NewString()
		if c.Binary {
			rows[i].value = base64.StdEncoding.EncodeToString(c.Value)
		} else {
			rows[i].value = string(c.Value)
		}
		if c.TTL > 0 {
			// The table knows whole seconds; a part of one counts as one.
			rows[i].expires = now.Add(c.TTL + time.Second - 1).Format(timeForm)
		}
	}
	return rows
}

// unmet is the error for a condition that did not hold.
func (r *row) unmet() error {
	if r.ETag != nil {
		return errETag
	}
	return errFirst
}

// carryOut does one change and tells whether its condition held.
func (s *store) carryOut(tx *sql.Tx, r *row) (held bool, err error) {
	query, args := s.statement(r)
	st, err := s.db.Stmt(tx, query)
	if err != nil {
		return false, err
	}
	n, err := affected(st.Exec(args...))
	return n > 0 || r.Delete && r.ETag == nil, err
}

func (s *store) statement(r *row) (query string, args []any) {
	switch {
	case r.Delete && r.ETag != nil:
		return s.q.deleteETag, []any{r.Key, *r.ETag}
	case r.Delete:
		return s.q.delete, []any{r.Key}
	case r.ETag != nil:
		return s.q.saveETag, []any{r.Key, r.value, r.Binary, r.etag, r.expires, *r.ETag}
	case r.FirstWrite:
		return s.q.saveFirst, []any{r.Key, r.value, r.Binary, r.etag, r.expires}
	}
	return s.q.save, []any{r.Key, r.value, r.Binary, r.etag, r.expires}
}
