package postgres

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

var (
	errETag  = fault.New(fault.Conflict, "the item has another ETag, or is not there")
	errFirst = fault.New(fault.Conflict, "the item is there already")
	errNoTag = fault.New(fault.Invalid, "read ETag: it is not one of this store's")
)

// statement is a change as it is sent.
type statement struct {
	at    int // in the changes
	query string
	args  []any
	free  bool  // it has no condition
	unmet error // when its condition does not hold
}

// statements makes them of changes, in the order of keys, so that two callers
// never wait for each other's rows; those of one key stay in their order. What
// cannot be sent is in errs.
func (s *store) statements(changes []state.Change, errs []error) []statement {
	out := make([]statement, 0, len(changes))
	for i := range changes {
		st, err := s.statement(&changes[i])
		if st.at = i; err != nil {
			errs[i] = err
			continue
		}
		out = append(out, st)
	}
	slices.SortStableFunc(out, func(a, b statement) int { return cmp.Compare(changes[a.at].Key, changes[b.at].Key) })
	return out
}

func (s *store) statement(c *state.Change) (statement, error) {
	st := statement{args: []any{c.Key}, free: c.ETag == nil && (c.Delete || !c.FirstWrite), unmet: errFirst}
	if !c.Delete {
		value := c.Value
		if s.l.queries && c.Binary {
			value = base64.StdEncoding.AppendEncode([]byte{'"'}, c.Value)
			value = append(value, '"')
		}
		var ttl *int64 // NULL: for ever
		if c.TTL > 0 {
			n := int64(state.Whole(c.TTL) / time.Second)
			ttl = &n
		}
		if value == nil {
			value = []byte{} // nil would be NULL
		}
		if st.args = append(st.args, value, ttl); s.l.queries {
			st.args = append(st.args, c.Binary)
		}
	}
	if c.ETag != nil {
		etag, err := s.etag(*c.ETag)
		if err != nil {
			return st, err
		}
		st.args, st.unmet = append(st.args, etag), errETag
	}
	switch {
	case c.Delete && c.ETag != nil:
		st.query = s.l.deleteETag
	case c.Delete:
		st.query = s.l.delete
	case c.ETag != nil:
		st.query = s.l.saveETag
	case c.FirstWrite:
		st.query = s.l.saveFirst
	default:
		st.query = s.l.save
	}
	return st, nil
}

// etag is what the table compares with.
func (s *store) etag(text string) (any, error) {
	if s.l.queries {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, errNoTag
		}
		return uint32(n), nil
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return nil, errNoTag
	}
	return id.String(), nil
}

// Apply implements state.Driver: one round trip, which the server commits at its
// end. One whose condition does not hold has changed nothing, so it does not
// hinder the others; one that the server refuses does, and then they go one by
// one.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	errs := make([]error, len(changes))
	todo := s.statements(changes, errs)
	if len(todo) > 0 {
		if err := s.send(ctx, todo, errs); err != nil {
			if len(changes) == 1 || fault.KindOf(err) != fault.Invalid && !client.Again(err) {
				return err
			}
			for _, st := range todo {
				if err := s.send(ctx, []statement{st}, errs); err != nil {
					errs[st.at] = err
				}
			}
		}
	}
	return state.Batch(errs)
}

// send carries out all statements, or none when it returns an error, and notes
// which conditions did not hold.
func (s *store) send(ctx context.Context, todo []statement, errs []error) error {
	if len(todo) == 1 {
		st := &todo[0]
		tag, err := s.db.Pool().Exec(ctx, st.query, st.args...)
		errs[st.at] = nil
		if err == nil && !st.free && tag.RowsAffected() == 0 {
			errs[st.at] = st.unmet
		}
		return client.Classify(err)
	}
	_, err := exec(ctx, s.db.Pool(), todo, errs)
	return client.Classify(err)
}

// exec sends the statements together and returns the first whose condition did
// not hold; all of them are in errs, unless that is nil.
func exec(ctx context.Context, on interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}, todo []statement, errs []error,
) (first *statement, err error) {
	var b pgx.Batch
	for i := range todo {
		b.Queue(todo[i].query, todo[i].args...)
	}
	r := on.SendBatch(ctx, &b)
	for i := range todo {
		st := &todo[i]
		tag, err := r.Exec()
		if err != nil {
			_ = r.Close() // it has the same error
			return nil, err
		}
		unmet := !st.free && tag.RowsAffected() == 0
		if unmet && first == nil {
			first = st
		}
		if errs == nil {
			continue
		}
		if errs[st.at] = nil; unmet {
			errs[st.at] = st.unmet
		}
	}
	return first, r.Close()
}

// holding puts an item before each that is deleted without a condition. To delete
// what is not there holds no row: somebody else could save that item, and then
// another of this transaction, before it ends, and no order of the two would
// explain what is left.
func (s *store) holding(todo []statement, changes []state.Change) []statement {
	out := make([]statement, 0, len(todo))
	for _, st := range todo {
		if c := changes[st.at]; c.Delete && c.ETag == nil {
			null := state.Change{Key: c.Key, Value: []byte("null")}
			if hold, err := s.statement(&null); err == nil { // it only fails for an ETag
				hold.at = st.at
				out = append(out, hold)
			}
		}
		out = append(out, st)
	}
	return out
}

// Transact implements state.Transactor.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	errs := make([]error, len(changes))
	todo := s.holding(s.statements(changes, errs), changes)
	if err := state.Batch(errs); err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		first, err := exec(ctx, tx, todo, nil)
		if err == nil && first != nil {
			err = first.unmet
		}
		return err
	})
}
