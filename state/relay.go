package state

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	// sweepEvery is how often the store is looked through for rows that nobody
	// publishes, and how often own ones are claimed anew.
	sweepEvery = 15 * time.Second
	listPage   = 500
	ackAtOnce  = 256
)

// Run hands rows to emit until ctx ends, those of one key in order: first what
// earlier processes left behind, then what is committed here. It waits for the
// store to open. A row that was settled is deleted; one that was left stays.
func (q *OutboxQueue) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	d, err := q.store.instance.Await(ctx)
	if err != nil {
		return err
	}
	if _, ok := d.(Lister); !ok {
		return fault.New(fault.Invalid, "read outbox of %s: the store cannot list its keys", q.store.name)
	}
	acks := newAcks(q)
	done := make(chan struct{})
	go func() {
		defer close(done)
		acks.run(ctx)
	}()
	defer func() { <-done }()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if q.behind() {
			if err := q.sweep(ctx, acks, emit); err != nil {
				return err
			}
		}
		for _, r := range q.take() {
			if err := q.emit(ctx, acks, r, emit); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		case <-tick.C:
			q.lag()
		}
	}
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

func (q *OutboxQueue) take() []queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	rows := q.fresh[:0]
	for _, r := range q.fresh { // but for those that a sweep has emitted
		if _, still := q.waiting[r.key]; still {
			rows = append(rows, r)
		}
	}
	q.fresh = nil
	clear(q.waiting)
	return rows
}

// sweep reads every row of the store, in order, and emits what nobody else
// publishes.
func (q *OutboxQueue) sweep(ctx context.Context, acks *acks, emit cloudevents.EmitFunc) error {
	keys, err := q.list(ctx)
	if err != nil {
		return err
	}
	defer q.watch(false)
	for page := range slices.Chunk(keys, listPage) {
		q.watch(true)
		items, err := q.store.GetMany(ctx, page, Read{Strong: true})
		if err != nil {
			return err
		}
		for i, it := range items {
			if !it.Found || it.Err != nil {
				continue
			}
			var r Row
			if json.Unmarshal(it.Value, &r) != nil {
				continue // an app's own key that looks like one
			}
			if !q.claim(ctx, page[i], &r, it.ETag) {
				continue
			}
			if err := q.emit(ctx, acks, queued{page[i], r}, emit); err != nil {
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
func (q *OutboxQueue) claim(ctx context.Context, key string, r *Row, etag string) bool {
	now := time.Now()
	q.mu.Lock()
	_, under := q.known[key]
	_, pending := q.pending[key]
	_, deleted := q.deleted[key]
	delete(q.waiting, key) // in its turn here
	q.mu.Unlock()
	mine := r.Owner == q.me
	switch {
	case pending, deleted:
		return false
	case mine && !under && now.Sub(r.Owned) < sweepEvery:
		return true
	case under && (!mine || now.Sub(r.Owned) < sweepEvery):
		return false
	case !mine && !r.gone(q.me, now):
		return false
	}
	r.Owner, r.Owned = q.me, now
	c := (&queued{key, *r}).change()
	c.ETag = &etag
	return q.store.Apply(ctx, []Change{c}) == nil && !under
}

// emit hands one row on, unless it is under way.
func (q *OutboxQueue) emit(ctx context.Context, acks *acks, r queued, emit cloudevents.EmitFunc) error {
	q.mu.Lock()
	_, under := q.known[r.key]
	if !under {
		q.known[r.key] = struct{}{}
	}
	q.mu.Unlock()
	if under {
		return nil
	}
	body, _ := json.Marshal(r.row) // it has nothing that cannot be
	d := &cloudevents.Delivery{Body: body, Key: r.row.Key, Attempt: 1, Origin: q.store.name + "/" + strings.TrimSuffix(rowPrefix, "-")}
	d.Settle = func(o cloudevents.Outcome) {
		if o.Verdict == cloudevents.Ack || o.Verdict == cloudevents.Drop {
			acks.add(r.key)
			return
		}
		q.forget(r.key)
	}
	if err := emit(ctx, d); err != nil {
		q.forget(r.key)
		return err
	}
	return nil
}

// forget makes a row one that is not under way: the next sweep finds it.
func (q *OutboxQueue) forget(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.known, key)
}

// gone notes that rows are deleted, for a sweep that has read them before.
func (q *OutboxQueue) gone(keys []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, key := range keys {
		delete(q.known, key)
		if q.deleted != nil {
			q.deleted[key] = struct{}{}
		}
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
