// Package dedupe remembers in the data folder's SQLite file which events were
// delivered, so that a route delivers each once.
//
// A caller opens a [Store] in the data folder and gives each route the
// [Store.Claims] of its name, which is a router.Claims; [InStore] is the same in
// a state store that replicas share. Claims of events under
// way are in memory, because they end with the process; what was delivered is
// on the disk before the source hears of it.
//
// It promises that a key which was confirmed is known as delivered until its
// time to live is over, also after a killed process, and that a claim is never
// held by two deliveries of one process. Processes that use the same file see
// each other's deliveries and not each other's claims. At most [MaxKeys] keys
// are kept for a route; beyond that the oldest are forgotten first.
package dedupe

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
)

const (
	// MaxKeys is how many delivered keys are kept for one route.
	MaxKeys = 1_000_000
	// DefaultTTL is how long a key is remembered when nothing else is said.
	DefaultTTL = 24 * time.Hour

	cleanInterval = time.Minute
	cleanBatch    = 10_000
)

func schema() []string {
	return []string{
		`CREATE TABLE dedupe_delivered (
			key BLOB PRIMARY KEY, route TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID`,
		`CREATE INDEX dedupe_expires ON dedupe_delivered (expires)`,
		`CREATE INDEX dedupe_route ON dedupe_delivered (route, expires)`,
	}
}

type digest [sha256.Size]byte

// Store keeps the keys of all routes. It is safe for concurrent use.
type Store struct {
	db   *sqlite.DB
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	held   map[digest]struct{} // never more than deliveries under way
	routes map[string]struct{} // of which keys were confirmed
}

// Open opens the store, in the file that sqlite.Open opens without a path. The
// kinds of its errors are those of sqlite.Open.
func Open(ctx context.Context, env component.Env) (*Store, error) {
	db, err := sqlite.Open(ctx, env, "")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "dedupe", schema()...); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &Store{db: db, log: env.Logger, done: make(chan struct{}), held: map[digest]struct{}{}, routes: map[string]struct{}{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.tidy(ctx)
	return s, nil
}

// Close writes what was confirmed and closes the file.
func (s *Store) Close() error {
	s.stop()
	<-s.done
	return s.db.Close()
}

// Claims returns the keys of one route, each remembered for ttl after it was
// delivered; zero is [DefaultTTL].
func (s *Store) Claims(route string, ttl time.Duration) router.Claims {
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	return &claims{Store: s, route: route, ttl: ttl}
}

// claims are the keys of one route.
type claims struct {
	*Store
	route string
	ttl   time.Duration
}

func (c *claims) digest(key string) digest { return digestOf(c.route, key) }

func digestOf(route, key string) digest { return sha256.Sum256([]byte(route + "\x00" + key)) }

// Claim implements router.Claims.
func (c *claims) Claim(ctx context.Context, key string) (router.ClaimState, error) {
	d := c.digest(key)
	c.mu.Lock()
	_, held := c.held[d]
	if !held {
		c.held[d] = struct{}{}
	}
	c.mu.Unlock()
	if held {
		return router.Held, nil
	}
	var one int
	err := c.db.Read().QueryRowContext(ctx, `SELECT 1 FROM dedupe_delivered WHERE key = ? AND expires > ?`,
		d[:], time.Now().UnixMilli()).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return router.Claimed, nil
	case err == nil:
		c.release(d)
		return router.Delivered, nil
	}
	c.release(d)
	return router.Held, fault.Wrap(sqlite.Classify(err), "look up delivered event")
}

// Confirm implements router.Claims.
func (c *claims) Confirm(ctx context.Context, key string) error {
	d := c.digest(key)
	expires := time.Now().Add(c.ttl).UnixMilli()
	err := c.db.Write(ctx, func(tx *sql.Tx) error {
		st, err := c.db.Stmt(tx, `INSERT INTO dedupe_delivered (key, route, expires) VALUES (?, ?, ?)
			ON CONFLICT (key) DO UPDATE SET expires = excluded.expires`)
		if err != nil {
			return err
		}
		_, err = st.Exec(d[:], c.route, expires)
		return err
	})
	if err != nil {
		return fault.Wrap(err, "write delivered event")
	}
	c.mu.Lock()
	delete(c.held, d)
	c.routes[c.route] = struct{}{}
	c.mu.Unlock()
	return nil
}

// Release implements router.Claims.
func (c *claims) Release(key string) { c.release(c.digest(key)) }

func (s *Store) release(d digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, d)
}

// tidy forgets what is over, now and then.
func (s *Store) tidy(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(cleanInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.clean(ctx, MaxKeys); err != nil && ctx.Err() == nil {
			s.log.Warn("Delivered events not tidied up; trying again in a minute", "error", err)
		}
	}
}

// clean removes keys whose time is over, and the oldest of each route beyond
// most. It works in batches, so that deliveries get in between.
func (s *Store) clean(ctx context.Context, most int) error {
	err := s.remove(ctx, `DELETE FROM dedupe_delivered WHERE key IN
		(SELECT key FROM dedupe_delivered WHERE expires <= ? LIMIT ?)`, time.Now().UnixMilli(), cleanBatch)
	if err != nil {
		return err
	}
	s.mu.Lock()
	routes := slices.Collect(maps.Keys(s.routes))
	s.mu.Unlock()
	for _, route := range routes {
		if err := s.cut(ctx, route, most); err != nil {
			return err
		}
	}
	return nil
}

// cut forgets the oldest keys of a route that has more than most.
func (s *Store) cut(ctx context.Context, route string, most int) error {
	var last int64
	err := s.db.Read().QueryRowContext(ctx, `SELECT expires FROM dedupe_delivered WHERE route = ?
		ORDER BY expires DESC LIMIT 1 OFFSET ?`, route, most).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return sqlite.Classify(err)
	}
	return s.remove(ctx, `DELETE FROM dedupe_delivered WHERE key IN
		(SELECT key FROM dedupe_delivered WHERE route = ? AND expires <= ? ORDER BY expires LIMIT ?)`, route, last, cleanBatch)
}

// remove runs a statement whose last argument limits it until it removes less.
func (s *Store) remove(ctx context.Context, query string, args ...any) error {
	for {
		var n int64
		err := s.db.Write(ctx, func(tx *sql.Tx) error {
			res, err := tx.Exec(query, args...)
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
			return err
		})
		if err != nil || n < cleanBatch {
			return err
		}
	}
}
