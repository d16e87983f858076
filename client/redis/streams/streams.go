// Package streams reads consumer groups of Redis streams so that nothing is lost
// and nobody is waited for.
//
// Each reader is a consumer with a name of its own and a key that says that it
// lives. What it has read stays in the group's list of pending entries until it
// is settled. The entries of a consumer whose key has run out are taken over by
// the others within five seconds; those of a consumer that is not ours, such as
// a sidecar of Dapr, when they have been pending for as long as it allows itself.
//
// It promises that an entry is acknowledged only after an outcome that says so;
// that it is delivered again after a retry, not before its time and counted, in
// this process or another; and that a group that somebody deleted is made again
// where it was. Order is that of the stream for each reader. It holds at most
// 10000 entries that wait for a retry, then it stops reading.
package streams

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	prefix     = "penstock-"                // of consumer names that are ours
	aliveKey   = "penstock:alive:"          // before a consumer's name
	dueKey     = "penstock:due:"            // before stream and group
	beatEvery  = 750 * time.Millisecond     //
	lookEvery  = 250 * time.Millisecond     // for a sign of life, before reading
	strayAfter = 5 * time.Second            // an entry of ours whose answer cannot come any more
	lifetime   = 3 * time.Second            // of the key without a beat
	claimIdle  = 1000                       // ms: an entry that somebody just took over is not taken again
	page       = 1000                       // entries of one request
	parkedMost = 10000                      // entries waiting for a retry
	takenMost  = 1000                       // entries taken over and not yet handed out
	readBlock  = 250 * time.Millisecond     // short, for a server in a test ends no read before
	readBytes  = 16 << 20                   // of one read, by the size of those before
	handedIdle = int64(time.Hour / 1000000) // ms: makes an entry free for all at once
	minBackoff = 100 * time.Millisecond     // of a retry that names no wait
	maxBackoff = 15 * time.Second           //
	dueKept    = 30 * 24 * 3600             // s
	wellTime   = 30 * time.Second           // the router's: a source that ran that long begins anew
)

// Options are those of [New].
type Options struct {
	Client *redis.Client
	Logger *slog.Logger
	// Timeout is how long an entry of a foreign consumer stays its own; 0 is for
	// ever.
	Timeout time.Duration
	// Count is how many entries one read asks for at most.
	Count int
	// Aside: what is left comes again with the next Read only, the way of
	// bindings.
	Aside bool
}

// Entry is one entry of a stream.
type Entry struct {
	ID     string
	Fields []rueidis.XRangeFieldValue
}

// DecodeFunc fills in what a delivery takes from its entry; Settle and Attempt
// are not its business.
type DecodeFunc func(d *cloudevents.Delivery, e *Entry)

// Groups reads consumer groups. Make one with [New].
type Groups struct {
	o      Options
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	acks   *batch.Writer[note]
	work   sync.WaitGroup // beats
	reads  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	members map[[2]string]*member
}

// New makes a reader. Its goroutines end with Close, not with ctx.
func New(ctx context.Context, o Options) *Groups {
	g := &Groups{o: o, members: map[[2]string]*member{}}
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	g.acks = batch.NewWriter(ctx, batch.Options[note]{Write: g.write, Most: 1024})
	return g
}

var errClosed = fault.New(fault.Unavailable, "the reader is closed")

// Prepare makes the group, from the beginning of the stream, unless it is
// there.
func (g *Groups) Prepare(ctx context.Context, stream, group string) error {
	return g.create(ctx, stream, group, "0")
}

func (g *Groups) create(ctx context.Context, stream, group, at string) error {
	c := g.o.Client
	err := c.Do(ctx, c.B().XgroupCreate().Key(stream).Group(group).Id(at).Mkstream().Build()).Error()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return fault.Wrap(redis.Classify(err), "create group %q of stream %q", group, stream)
	}
	return nil
}

// Read hands the group's entries to emit until ctx ends, then returns nil. It
// waits for a server that is away. Outcomes may arrive until Close.
func (g *Groups) Read(ctx context.Context, stream, group string, decode DecodeFunc, emit cloudevents.EmitFunc) error {
	m, err := g.join(stream, group, decode)
	if err != nil {
		return err
	}
	defer g.reads.Done()
	defer m.leaveRead()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.ctx, cancel)()
	err = m.read(ctx, emit)
	if g.ctx.Err() != nil {
		return errClosed
	}
	return err
}

// join finds or makes the member and counts a reader in.
func (g *Groups) join(stream, group string, decode DecodeFunc) (*member, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errClosed
	}
	g.reads.Add(1)
	key := [2]string{stream, group}
	m := g.members[key]
	if m == nil {
		m = &member{
			g: g, stream: stream, group: group, decode: decode, name: prefix + strings.ToLower(rand.Text()[:16]),
			under: map[string]*held{}, wake: make(chan struct{}, 1),
		}
		g.members[key] = m
		g.work.Go(m.live)
	}
	m.mu.Lock()
	m.readers++
	m.mu.Unlock()
	return m, nil
}

// Close ends the reads, writes the acknowledgements that are under way and
// gives what is not settled free for others. When ctx ends first they take it a
// few seconds later.
func (g *Groups) Close(ctx context.Context) error {
	g.mu.Lock()
	was := g.closed
	g.closed = true
	g.mu.Unlock()
	if was {
		return nil
	}
	g.cancel()
	done := make(chan struct{})
	go func() {
		g.reads.Wait()
		g.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close: wait for readers")
	}
	if err := g.acks.Close(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lifetime)
	defer cancel()
	for _, m := range g.members {
		if m.rest(ctx) != nil {
			break // the others see it for themselves
		}
	}
	return nil
}
