package state

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	// renewEvery is how often rows under way are claimed anew.
	renewEvery = 15 * time.Second
	// sweepEvery is how often the store is looked through for rows that nobody
	// publishes: a look at many keys where a store has no order of them.
	sweepEvery = time.Minute
	listPage   = 500
)

// Run hands rows to emit until ctx ends, those of one key in order: first what
// is in the store, then what is committed here. It waits for the store to open.
// Whoever publishes a row calls Published; one that is settled without that
// stays, and comes again.
func (q *OutboxQueue) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	d, err := q.store.instance.Await(ctx)
	if err != nil {
		return err
	}
	if _, ok := d.(Lister); !ok {
		return fault.New(fault.Invalid, "read outbox of %s: the store cannot list its keys", q.store.name)
	}
	q.lag() // a Run before may have left some
	renew, sweep := time.NewTicker(renewEvery), time.NewTicker(sweepEvery)
	defer renew.Stop()
	defer sweep.Stop()
	for {
		if err := q.work(ctx, emit); err != nil {
			q.lag()
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		case <-sweep.C:
			q.lag()
		case <-renew.C:
			if err := q.visit(ctx, q.underWay(), emit); err != nil {
				return err
			}
		}
	}
}

// work emits what there is.
func (q *OutboxQueue) work(ctx context.Context, emit cloudevents.EmitFunc) error {
	if q.behind() {
		keys, err := q.list(ctx)
		if err == nil {
			err = q.visit(ctx, keys, emit)
		}
		if err != nil {
			return err
		}
	}
	for _, r := range q.take() {
		if err := q.emit(ctx, r, emit); err != nil {
			return err
		}
	}
	return nil
}

// Published deletes a row whose event is with the broker.
func (q *OutboxQueue) Published(ctx context.Context, r *Row) error {
	if err := q.store.Apply(ctx, []Change{{Key: r.ID, Delete: true}}); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.known, r.ID)
	if q.deleted != nil { // a visit may have read it before
		q.deleted[r.ID] = struct{}{}
	}
	return nil
}

func (q *OutboxQueue) underWay() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Sorted(maps.Keys(q.known))
}

// behind tells, once, whether rows must be read from the store.
func (q *OutboxQueue) behind() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	more := q.more
	q.more = false
	return more
}

// lag says that rows must be read from the store.
func (q *OutboxQueue) lag() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.more = true
}

func (q *OutboxQueue) take() []Row {
	q.mu.Lock()
	defer q.mu.Unlock()
	rows := q.fresh[:0]
	for _, r := range q.fresh { // but for those that a visit has emitted
		if _, still := q.waiting[r.ID]; still {
			rows = append(rows, r)
		}
	}
	q.fresh = nil
	clear(q.waiting)
	return rows
}

// visit reads rows, in order, emits what nobody else publishes and claims what is
// under way anew.
func (q *OutboxQueue) visit(ctx context.Context, keys []string, emit cloudevents.EmitFunc) error {
	defer q.watch(false)
	for page := range slices.Chunk(keys, listPage) {
		q.watch(true)
		items, err := q.store.GetMany(ctx, page, Read{Strong: true})
		if err != nil {
			return err
		}
		for i, it := range items {
			var r Row // an app's own key that looks like one has another ID
			if !it.Found || it.Err != nil || json.Unmarshal(it.Value, &r) != nil || r.ID != page[i] {
				continue
			}
			if !q.claim(ctx, &r, it.ETag) {
				continue
			}
			if err := q.emit(ctx, r, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *OutboxQueue) list(ctx context.Context) (keys []string, err error) {
	token := ""
	for {
		page, next, err := q.store.Keys(ctx, rowPrefix, token, listPage)
		if err != nil {
			return nil, err
		}
		keys = append(keys, page...)
		if token = next; token == "" {
			slices.Sort(keys)
			return slices.Compact(keys), nil
		}
	}
}

// claim tells whether a row is to be emitted here. A row under way is claimed
// anew before others take it for abandoned; one whose owner is gone is taken
// over, by one process only.
func (q *OutboxQueue) claim(ctx context.Context, r *Row, etag string) bool {
	now := time.Now()
	q.mu.Lock()
	_, under := q.known[r.ID]
	_, pending := q.pending[r.ID]
	_, deleted := q.deleted[r.ID]
	delete(q.waiting, r.ID) // in its turn here
	q.mu.Unlock()
	mine, recent := r.Owner == q.me, now.Sub(r.Owned) < renewEvery
	switch {
	case pending, deleted:
		return false
	case mine && recent:
		return !under
	case !mine && (under || !r.gone(q.me, now)):
		return false
	}
	r.Owner, r.Owned = q.me, now
	c := r.change()
	c.ETag = &etag
	return q.store.Apply(ctx, []Change{c}) == nil && !under
}

// emit hands one row on, unless it is under way.
func (q *OutboxQueue) emit(ctx context.Context, r Row, emit cloudevents.EmitFunc) error {
	q.mu.Lock()
	_, under := q.known[r.ID]
	q.known[r.ID] = struct{}{}
	q.mu.Unlock()
	if under {
		return nil
	}
	body, _ := json.Marshal(r) // it has nothing that cannot be
	d := &cloudevents.Delivery{Body: body, Key: r.Key, Attempt: 1, Origin: q.store.name + "/outbox"}
	d.Settle = func(cloudevents.Outcome) { q.left(r.ID) }
	err := emit(ctx, d)
	if err != nil {
		q.left(r.ID)
	}
	return err
}

// left makes a row that was not published one that comes again.
func (q *OutboxQueue) left(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, under := q.known[id]; under {
		delete(q.known, id)
		q.more = true
	}
}

// watch begins, or ends, to note what is deleted.
func (q *OutboxQueue) watch(on bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deleted = nil
	if on {
		q.deleted = map[string]struct{}{}
	}
}
