// Package deadletters keeps the events that were given up, for people to look
// at, replay and discard.
//
// The runtime makes one [Keeper]. For every dead letter topic it adds a route
// whose target is [Keeper.Collect], whose gate is [Keeper.Room] and whose key is
// [Key], so that the keeper works on every broker through the contract alone and
// sees what other replicas, or a Dapr sidecar, gave up. The API calls
// [Keeper.List], [Keeper.Get], [Keeper.Replay] and [Keeper.Discard].
//
// The package promises that a dead letter whose Collect was acknowledged is on
// the disk (one SQLite file in the data folder, made when the first one comes);
// that one delivered twice is kept once; that it stays until it was taken by its
// route, was dead-lettered anew or is discarded; and that the original bytes and
// metadata are replayed unchanged. A replay is at least once. Bounds:
// [MaxLetters] and [MaxBytes] in the file, then nothing more is taken and the
// broker keeps it; [MaxUnderWay] events of one replay are under way at once.
package deadletters

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// The metadata that a dead letter carries beside the original bytes.
const (
	ReasonKey   = "dlqreason"
	KindKey     = "dlqkind"
	AttemptsKey = "dlqattempts"
	RouteKey    = "dlqroute"
	TargetKey   = "dlqtarget"
	TimeKey     = "dlqtime"
	OriginKey   = "dlqorigin"
	AppKey      = "dlqapp"
	ReplaysKey  = "dlqreplays"
	KeyKey      = "dlqkey"
	HopsKey     = "dlqhops" // how often a dead letter was given up again, absent at first
)

// The bounds of what is kept. They may be passed by what is under way when they
// are reached: 64 dead letters of each topic.
const (
	MaxLetters = 100_000
	MaxBytes   = 1 << 30
)

// File is the name of the file in the data folder.
const File = "deadletters.db"

// Letter is one dead letter.
type Letter struct {
	// ID is the same however often the broker delivers the dead letter.
	ID string `json:"id"`
	// PubSub and Topic are where it was collected.
	PubSub string `json:"pubsub"`
	Topic  string `json:"topic"`
	// Event's attributes; empty when the body is no event.
	EventID     string `json:"eventId,omitempty"`
	EventType   string `json:"eventType,omitempty"`
	EventSource string `json:"eventSource,omitempty"`
	// What its route said; empty when something else than Penstock wrote it.
	Reason   string `json:"reason,omitempty"`
	Kind     string `json:"kind,omitempty"`
	Route    string `json:"route,omitempty"`
	Target   string `json:"target,omitempty"`
	Origin   string `json:"origin,omitempty"`
	Attempts int    `json:"attempts"`
	// Replays counts how often it was replayed, in earlier dead letters of the
	// same event too.
	Replays int `json:"replays"`
	// Time is when it was given up, or else collected.
	Time time.Time `json:"time"`
	// Size of body and metadata in bytes.
	Size int `json:"size"`
	// Metadata and Body are what the broker delivered; only Get fills them in.
	Metadata map[string]string `json:"metadata,omitempty"`
	Body     []byte            `json:"-"`

	seq int64
}

// Options are those of a [Keeper].
type Options struct {
	// App is the id of the app whose dead letters are kept; those that another
	// app's Penstock wrote are not.
	App string
	// Env is where the file is: DataDir and Shared.
	Env component.Env
	// Expr compiles filters.
	Expr *expr.Compiler
	// Inject hands an event to the route that gave it up.
	Inject func(ctx context.Context, route string, d *cloudevents.Delivery) error
	// Publish sends an event to a topic instead.
	Publish func(ctx context.Context, pubsub, topic string, body []byte, metadata map[string]string) error
	// Routes names those that have the topic as their dead letter topic.
	Routes func(pubsub, topic string) []string
	Logger *slog.Logger

	// MaxLetters and MaxBytes are the bounds; zero is the constants.
	MaxLetters, MaxBytes int64
}

// Keeper keeps dead letters. Its methods may be called from any goroutine. It
// opens its file when it is needed for the first time.
type Keeper struct {
	o    Options
	log  *slog.Logger
	path string

	opening sync.Mutex
	db      *sqlite.DB // under opening
	closed  bool       // under opening

	full    atomic.Bool
	letters atomic.Int64 // of the file, all apps
	bytes   atomic.Int64
	freed   chan struct{} // holds one when something went

	finishing sync.WaitGroup // replays whose caller is gone
	mu        sync.Mutex
	replaying map[int64]struct{}   // under mu
	stopped   bool                 // under mu
	cancels   map[*run]func(error) // under mu; of replays that somebody waits for
}

// New makes a keeper; nothing is opened.
func New(o Options) *Keeper {
	k := &Keeper{
		o: o, log: o.Logger, path: filepath.Join(o.Env.DataDir, File),
		freed: make(chan struct{}, 1), replaying: map[int64]struct{}{}, cancels: map[*run]func(error){},
	}
	k.o.MaxLetters = cmp.Or(o.MaxLetters, MaxLetters)
	k.o.MaxBytes = cmp.Or(o.MaxBytes, MaxBytes)
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.o.Expr == nil {
		k.o.Expr = expr.New()
	}
	return k
}

// Stop ends the replays that go on, and begins no more; what is under way is
// settled by its routes.
func (k *Keeper) Stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	for _, cancel := range k.cancels {
		cancel(errStopping)
	}
}

var errStopping = fault.New(fault.Unavailable, "replay dead letters: Penstock is stopping; the rest stays")

// begin lets Stop end a replay, whose context it returns.
func (k *Keeper) begin(ctx context.Context, x *run) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		cancel(errStopping)
	}
	k.cancels[x] = cancel
	return ctx, func() {
		cancel(nil)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.cancels, x)
	}
}

// Close waits for replays under way, whose routes must have been drained, and
// closes the file.
func (k *Keeper) Close() error {
	k.finishing.Wait()
	k.opening.Lock()
	defer k.opening.Unlock()
	k.closed = true
	if k.db == nil {
		return nil
	}
	db := k.db
	k.db = nil
	return fault.Wrap(db.Close(), "close dead letters")
}

// roomInterval is how often a full keeper looks whether another process made
// room.
const roomInterval = 5 * time.Second

// Room waits while the keeper is full: the gate of the routes that collect.
func (k *Keeper) Room(ctx context.Context) error {
	for k.isFull() {
		if !k.full.Swap(true) {
			k.log.Warn("Dead letters are full; further ones stay with their broker until some are replayed or discarded",
				"letters", k.letters.Load(), "bytes", k.bytes.Load(), "file", k.path)
		}
		t := time.NewTimer(roomInterval)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-k.freed:
			t.Stop()
			if !k.isFull() {
				k.free() // for others that wait
			}
		case <-t.C:
			if db, err := k.open(ctx, false); err == nil && db != nil {
				_ = k.count(ctx, db) // a file that cannot be read stays full
			}
		}
	}
	if k.full.Load() && k.full.Swap(false) {
		k.log.Info("Dead letters are collected again")
	}
	return nil
}

func (k *Keeper) isFull() bool {
	return k.letters.Load() >= k.o.MaxLetters || k.bytes.Load() >= k.o.MaxBytes
}

// free tells one that waits for room.
func (k *Keeper) free() {
	select {
	case k.freed <- struct{}{}:
	default:
	}
}

// Count is how many dead letters of a topic are kept.
type Count struct {
	PubSub, Topic string
	Letters       int64
}

// Counts returns the topics with dead letters, in order, and whether the keeper
// is full. It reads one small table and never waits for a file to be opened.
func (k *Keeper) Counts() ([]Count, bool, error) {
	if !k.opening.TryLock() {
		return nil, k.full.Load(), nil
	}
	db := k.db
	k.opening.Unlock()
	if db == nil {
		return nil, false, nil
	}
	counts, err := k.counts(db)
	return counts, k.full.Load(), err
}
