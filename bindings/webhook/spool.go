package webhook

import (
	"container/heap"
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// maxStored bounds the ids of one webhook remembered on disk.
const maxStored = 1_000_000

// spool keeps what was answered 202 until it is delivered. Every row is in
// exactly one place: behind the cursor (not looked at yet), on the heap of
// those to deliver later, under way, or gone.
type spool struct {
	db   *sqlite.DB
	name string
	log  *slog.Logger
	now  func() time.Time

	reading chan struct{} // holds the token of the one that delivers
	fresh   chan struct{} // something may be there to deliver
	wake    chan struct{} // outcomes are there to be written
	quit    chan struct{}
	writer  sync.WaitGroup

	mu       sync.Mutex
	cursor   int64
	later    laterHeap
	outcomes []written
	rows     int // stored or about to be
	bytes    int64
	limits   limits
}

type limits struct {
	rows   int
	bytes  int64
	window time.Duration
}

// written is an outcome on its way to the disk.
type written struct {
	seq     int64
	id      string
	size    int64
	verdict cloudevents.Verdict
	due     time.Time
}

// openSpool returns the spool of one component. The next version of the same
// component shares it, so that nothing is delivered by both.
func openSpool(ctx context.Context, env component.Env, o options) (*spool, func() error, error) {
	s, release, err := component.Share(env.Shared, "webhook spool "+env.Name+" "+o.Database, func() (*spool, func() error, error) {
		return startSpool(ctx, env, o.Database)
	})
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	s.limits = limits{o.MaxSpool, int64(o.MaxSpoolSize), o.ReplayWindow}
	s.mu.Unlock()
	return s, release, nil
}

func startSpool(ctx context.Context, env component.Env, file string) (*spool, func() error, error) {
	db, err := sqlite.Open(ctx, env, file)
	if err != nil {
		return nil, nil, err
	}
	s := &spool{
		db: db, name: env.Name, log: env.Logger, now: time.Now,
		reading: make(chan struct{}, 1), fresh: make(chan struct{}, 1), wake: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	err = db.Migrate(ctx, "webhook",
		`CREATE TABLE webhook_spool (seq INTEGER PRIMARY KEY AUTOINCREMENT, hook TEXT NOT NULL, id TEXT NOT NULL, attrs TEXT NOT NULL,
			kind TEXT NOT NULL, body BLOB, metadata TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due INTEGER NOT NULL DEFAULT 0)`,
		`CREATE INDEX webhook_spool_hook ON webhook_spool (hook, seq)`,
		`CREATE TABLE webhook_seen (hook TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (hook, id)) WITHOUT ROWID`,
		`CREATE INDEX webhook_seen_at ON webhook_seen (hook, at)`)
	if err == nil {
		err = db.Read().QueryRowContext(ctx, `SELECT count(*), coalesce(sum(length(body)), 0) FROM webhook_spool WHERE hook = ?`,
			s.name).Scan(&s.rows, &s.bytes)
	}
	if err != nil {
		return nil, nil, fault.Wrap(errJoin(err, db.Close()), "open spool")
	}
	base := context.WithoutCancel(ctx)
	s.writer.Go(func() { s.writeLoop(base) })
	return s, func() error { return s.close(base) }, nil
}

// close writes the last outcomes. What has none stays for the next start.
func (s *spool) close(ctx context.Context) error {
	close(s.quit)
	s.writer.Wait()
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return errJoin(s.writeOutcomes(ctx), s.db.Close())
}

// put stores the items durably, all or none, in their order. It returns how
// many were known already. An error of kind Exhausted means that the spool is
// full.
func (s *spool) put(ctx context.Context, items []item) (duplicates int, err error) {
	var size int64
	for _, it := range items {
		size += int64(len(it.body))
	}
	if err := s.reserve(len(items), size); err != nil {
		return 0, err
	}
	var kept int64
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		duplicates, kept = 0, 0
		for _, it := range items {
			added, err := s.insert(tx, it)
			if err != nil {
				return err
			}
			if added {
				kept += int64(len(it.body))
			} else {
				duplicates++
			}
		}
		return nil
	})
	if err != nil {
		s.unreserve(len(items), size)
		return 0, fault.Wrap(err, "store event")
	}
	s.unreserve(duplicates, size-kept)
	ring(s.fresh)
	return duplicates, nil
}

func (s *spool) reserve(rows int, bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows+rows > s.limits.rows || s.bytes+bytes > s.limits.bytes {
		return fault.New(fault.Exhausted, "store event: %d events of %d bytes wait already", s.rows, s.bytes)
	}
	s.rows, s.bytes = s.rows+rows, s.bytes+bytes
	return nil
}

func (s *spool) unreserve(rows int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.bytes = s.rows-rows, s.bytes-bytes
}

// insert adds one row unless its id is known.
func (s *spool) insert(tx *sql.Tx, it item) (added bool, err error) {
	seen, err := s.db.Stmt(tx, `INSERT INTO webhook_seen (hook, id, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`)
	if err != nil {
		return false, err
	}
	res, err := seen.Exec(s.name, it.key, s.now().UnixMilli())
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); n == 0 || err != nil {
		return false, err
	}
	attrs, kind, err := encodeAttrs(it.event)
	if err != nil {
		return false, err
	}
	metadata, err := json.Marshal(it.metadata)
	if err != nil {
		return false, err
	}
	row, err := s.db.Stmt(tx, `INSERT INTO webhook_spool (hook, id, attrs, kind, body, metadata) VALUES (?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return false, err
	}
	_, err = row.Exec(s.name, it.key, attrs, kind, it.body, string(metadata))
	return true, err
}

// encodeAttrs writes the attributes beside the body. A structured event is in
// the body already.
func encodeAttrs(e *cloudevents.Event) (attrs, kind string, err error) {
	if e.Structured() {
		return "", "", nil
	}
	var list []cloudevents.Attr
	for name, value := range e.Attrs() {
		if name != "specversion" && name != "datacontenttype" {
			list = append(list, cloudevents.Attr{Name: name, Value: value})
		}
	}
	text, err := json.Marshal(list)
	return string(text), e.DataContentType(), err
}

func decodeEvent(attrs, kind string, body []byte) (*cloudevents.Event, error) {
	if attrs == "" {
		return cloudevents.Scan(body)
	}
	var list []cloudevents.Attr
	if err := json.Unmarshal([]byte(attrs), &list); err != nil {
		return nil, err
	}
	if len(body) == 0 {
		body = nil
	}
	return cloudevents.New(kind, body, list...)
}

// ring leaves a token for whoever waits.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// late is a row to deliver later.
type late struct {
	due time.Time
	seq int64
}

type laterHeap []late

func (h laterHeap) Len() int      { return len(h) }
func (h laterHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h laterHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].seq < h[j].seq
}
func (h *laterHeap) Push(x any) { *h = append(*h, x.(late)) }
func (h *laterHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// postpone puts a row on the heap.
func (s *spool) postpone(seq int64, due time.Time) {
	s.mu.Lock()
	heap.Push(&s.later, late{due, seq})
	s.mu.Unlock()
	ring(s.fresh)
}
