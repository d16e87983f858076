package deadletters

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Query says which dead letters. A zero field is not looked at.
type Query struct {
	// IDs are those alone; nothing else may be set then. At most [MaxIDs].
	IDs []string
	// PubSub and Topic are where they were collected; Route gave them up.
	PubSub, Topic, Route string
	// Kind is that of the error.
	Kind string
	// Reason is part of the reason, in any case.
	Reason string
	// MinAttempts is how often they were tried at least.
	MinAttempts int
	// Since and Until bound the time.
	Since, Until time.Time
	// Filter is a CEL expression over the event. A body that is no event is
	// the data of one; where the filter cannot be evaluated it does not match.
	Filter string
}

// MaxIDs bounds the ids of one query.
const MaxIDs = 10_000

// Empty tells whether the query says nothing, so that everything matches.
func (q *Query) Empty() bool {
	return len(q.IDs) == 0 && q.PubSub == "" && q.Topic == "" && q.Route == "" && q.Kind == "" && q.Reason == "" &&
		q.MinAttempts == 0 && q.Since.IsZero() && q.Until.IsZero() && q.Filter == ""
}

// check returns what is wrong with the query, kind Invalid, or its filter.
func (k *Keeper) check(q *Query) (*expr.Filter, error) {
	if len(q.IDs) > 0 {
		rest := *q
		rest.IDs = nil
		switch {
		case !rest.Empty():
			return nil, fault.New(fault.Invalid, "select dead letters: ids and filters exclude each other; give one of them")
		case len(q.IDs) > MaxIDs:
			return nil, fault.New(fault.Invalid, "select dead letters: more than %d ids; use several requests or a filter", MaxIDs)
		}
	}
	if q.Filter == "" {
		return nil, nil
	}
	f, err := k.o.Expr.CompileFilter(q.Filter)
	if err != nil {
		return nil, fault.As(fault.Invalid, fault.Wrap(err, "read filter"))
	}
	return f, nil
}

// where makes the SQL of the query but its filter and ids.
func (q *Query) where(app string) (string, []any) {
	var text strings.Builder
	text.WriteString(" WHERE app = ?")
	args := []any{app}
	and := func(condition string, set bool, value any) {
		if set {
			text.WriteString(" AND " + condition)
			args = append(args, value)
		}
	}
	and("pubsub = ?", q.PubSub != "", q.PubSub)
	and("topic = ?", q.Topic != "", q.Topic)
	and("route = ?", q.Route != "", q.Route)
	and("kind = ?", q.Kind != "", q.Kind)
	and("instr(lower(reason), lower(?)) > 0", q.Reason != "", q.Reason)
	and("attempts >= ?", q.MinAttempts > 0, q.MinAttempts)
	and("at >= ?", !q.Since.IsZero(), q.Since.UnixMilli())
	and("at <= ?", !q.Until.IsZero(), q.Until.UnixMilli())
	return text.String(), args
}

// Page is part of a list.
type Page struct {
	// Letters without body and metadata, the newest first.
	Letters []Letter
	// Next gets the next page; empty when there is none.
	Next string
}

// The length of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// List returns a page of the letters that match; page is the Next of the page
// before, or empty. A limit of zero is [DefaultLimit]; the most is [MaxLimit].
// Kind Invalid for a bad query.
func (k *Keeper) List(ctx context.Context, q *Query, limit int, page string) (*Page, error) {
	f, err := k.check(q)
	if err != nil {
		return nil, err
	}
	if limit < 0 || limit > MaxLimit {
		return nil, fault.New(fault.Invalid, "list dead letters: a limit of %d; use 1 to %d", limit, MaxLimit)
	}
	if limit == 0 {
		limit = DefaultLimit
	}
	before := int64(0)
	if page != "" {
		if before, err = strconv.ParseInt(page, 10, 64); err != nil || before <= 0 {
			return nil, fault.New(fault.Invalid, "list dead letters: page %.40q is not one that a list returned", page)
		}
	}
	p := &Page{Letters: []Letter{}}
	db, err := k.open(ctx, false)
	if err != nil || db == nil {
		return p, err
	}
	if len(q.IDs) > 0 {
		return p, k.byID(ctx, db, q.IDs, func(l *Letter) error {
			l.Metadata, l.Body = nil, nil
			p.Letters = append(p.Letters, *l)
			return nil
		}, nil)
	}
	err = k.walk(ctx, db, walk{query: q, filter: f, newest: true, from: before}, func(l *Letter) error {
		if len(p.Letters) == limit {
			p.Next = strconv.FormatInt(p.Letters[limit-1].seq, 10)
			return errEnough
		}
		p.Letters = append(p.Letters, *l)
		return nil
	})
	return p, err
}

// Get returns a whole letter. Kind NotFound.
func (k *Keeper) Get(ctx context.Context, id string) (*Letter, error) {
	db, err := k.open(ctx, false)
	if err != nil {
		return nil, err
	}
	if db != nil {
		l, err := k.read(ctx, db, "id", id)
		if err != nil || l != nil {
			return l, err
		}
	}
	return nil, notFound(id)
}

func notFound(id string) error {
	return fault.New(fault.NotFound, "find dead letter %.80q: there is none", id)
}

// byID calls f for each letter, and lacks for each id that has none.
func (k *Keeper) byID(ctx context.Context, db *sqlite.DB, ids []string, f func(*Letter) error, lacks func(id string)) error {
	for _, id := range ids {
		l, err := k.read(ctx, db, "id", id)
		switch {
		case err != nil:
			return err
		case l != nil:
			if err := f(l); err != nil {
				return err
			}
		case lacks != nil:
			lacks(id)
		}
	}
	return nil
}

var errEnough = errors.New("enough")

// stretch is how many rows are read in one go: a long read keeps the file from
// shrinking.
const stretch = 200

// walk is a way through all letters that match.
type walk struct {
	query  *Query
	filter *expr.Filter
	newest bool  // first
	from   int64 // the seq to go on behind; zero begins

	text string // SQL, made by walk
	args []any
}

// walk calls f for every letter that matches, without body and metadata, until
// f returns an error; errEnough ends it well.
func (k *Keeper) walk(ctx context.Context, db *sqlite.DB, w walk, f func(*Letter) error) error {
	var where string
	where, w.args = w.query.where(k.o.App)
	fields := columns
	if w.filter != nil {
		fields += ", metadata, body"
	}
	order := " AND seq > ? ORDER BY seq LIMIT ?"
	if w.newest {
		order = " AND seq < ? ORDER BY seq DESC LIMIT ?"
		if w.from == 0 {
			w.from = 1<<63 - 1
		}
	}
	w.text = "SELECT " + fields + " FROM deadletters" + where + order
	for {
		n, err := k.some(ctx, db, &w, f)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil || n < stretch {
			return err
		}
	}
}

// some does one stretch of a walk and returns how many rows it had.
func (k *Keeper) some(ctx context.Context, db *sqlite.DB, w *walk, f func(*Letter) error) (n int, err error) {
	rows, err := db.Read().QueryContext(ctx, w.text, append(slices.Clone(w.args), w.from, stretch)...)
	if err != nil {
		return 0, fault.Wrap(sqlite.Classify(err), "list dead letters")
	}
	defer rows.Close()
	for rows.Next() {
		var l Letter
		var metadata []byte
		var more []any
		if w.filter != nil {
			more = []any{&metadata, &l.Body}
		}
		if err := l.scan(rows, more...); err != nil {
			return n, fault.Wrap(sqlite.Classify(err), "list dead letters")
		}
		n++
		w.from = l.seq
		if w.filter != nil && !k.matches(w.filter, &l, metadata) {
			continue
		}
		l.Body = nil
		if err := f(&l); err != nil {
			return n, err
		}
	}
	return n, fault.Wrap(sqlite.Classify(rows.Err()), "list dead letters")
}

// matches evaluates the filter on the letter's event.
func (k *Keeper) matches(f *expr.Filter, l *Letter, metadata []byte) bool {
	var m map[string]string
	if json.Unmarshal(metadata, &m) != nil {
		return false
	}
	e, err := pubsub.EventOf(l.PubSub, l.Topic, l.Body, m)
	if err != nil {
		raw := cloudevents.Envelope{Source: k.o.App, Topic: l.Topic, PubSub: l.PubSub, ContentType: "text/plain"}
		if json.Valid(l.Body) {
			raw.ContentType = "application/json"
		}
		if e, err = raw.Wrap(l.Body); err != nil {
			return false
		}
	}
	ok, err := f.Match(e)
	return ok && err == nil
}
