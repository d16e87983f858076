// Package lists takes entries out of Redis lists so that nothing is lost between
// the taking and the outcome, and nobody is waited for.
//
// A plain LPOP loses an entry when its reader dies. Here an entry leaves the list
// by a script, or by BLMOVE where one is waited for, for keys beside it that all
// begin with "penstock:list:": its body and attempt under an id, and the id in
// the set of the reader that has it. A reader shows that it lives; what belongs to
// one that does not is taken over within five seconds, with the same id.
//
// It promises that an entry goes away only after an outcome that says so; that it
// is delivered again after a retry, not before its time and counted, in this
// process or another; and that entries are handed out in the order of the list,
// those that come again first.
package lists

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
	beatEvery  = 750 * time.Millisecond
	lifetime   = 3 * time.Second        // of a reader's key without a beat
	lookEvery  = 250 * time.Millisecond // for a sign of life, before reading
	blockFor   = 250 * time.Millisecond // of a wait for entries
	takeBytes  = 16 << 20               // of one request, about
	minBackoff = 100 * time.Millisecond // of a retry that names no wait
	maxBackoff = 15 * time.Second
	wellTime   = 30 * time.Second // the route's: a source that ran that long begins anew
)

// Options are those of [New].
type Options struct {
	Client *redis.Client
	Logger *slog.Logger
	List   string
	// Right takes from the right end of the list, for those who add at the left.
	Right bool
	// Count is how many entries one request brings at most.
	Count int
	// Decode fills in what a delivery takes from its entry; Settle and Attempt
	// are not its business.
	Decode DecodeFunc
}

// DecodeFunc makes the delivery of an entry. Its id is the server's clock in
// microseconds when it was first taken, and no other entry of the list has it.
type DecodeFunc func(d *cloudevents.Delivery, id string, body []byte)

// Reader reads one list. Make one with [New].
type Reader struct {
	o      Options
	name   string
	keys   keys
	take   *rueidis.Lua
	settle *rueidis.Lua
	free   *rueidis.Lua
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	acks   *batch.Writer[note]
	work   sync.WaitGroup // reads and beats
	taking sync.Mutex     // what is asked for and not yet under

	mu      sync.Mutex // guards what follows
	closed  bool
	shown   bool // there is a key that shows that we live
	readers int
	under   map[string]*held // every entry that is ours, by id
	aside   []*held          // to be handed out by the next Read
	failed  []note           // not written: tried with the next beat
	check   bool             // there may be entries of ours that never reached us
}

// keys are the names of what stands beside a list. In a cluster all are in the
// slot of the list.
type keys struct{ moved, seq, body, tries, free, names, own, alive string }

func keysOf(list string) keys {
	tag := "{" + list + "}"
	if i := strings.IndexByte(list, '{'); i >= 0 && strings.IndexByte(list[i+1:], '}') > 0 {
		tag = list // it has one
	}
	p := "penstock:list:" + tag + ":"
	return keys{p + "moved", p + "seq", p + "body", p + "tries", p + "free", p + "readers", p + "own:", p + "alive:"}
}

// held is one delivery of an entry.
type held struct {
	cloudevents.Delivery
	r       *Reader
	id      string
	settled sync.Once
}

// note is what is to be written of an entry.
type note struct {
	id      string
	attempt int
	wait    time.Duration // negative: it is done
}

// New makes a reader. Its goroutines end with Close, not with ctx.
func New(ctx context.Context, o Options) *Reader {
	r := &Reader{
		o: o, name: strings.ToLower(rand.Text()[:16]), keys: keysOf(o.List), under: map[string]*held{}, check: true,
		take: rueidis.NewLuaScript(take), settle: rueidis.NewLuaScript(settle), free: rueidis.NewLuaScript(release),
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.acks = batch.NewWriter(ctx, batch.Options[note]{Write: r.write, Most: 1024})
	r.work.Go(r.live)
	return r
}

var errClosed = fault.New(fault.Unavailable, "the reader is closed")

// Read hands entries to emit until ctx ends, then returns nil. It waits for a
// server that is away. Outcomes may arrive until Close; what is left comes with
// the next Read.
func (r *Reader) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	if !r.join() {
		return errClosed
	}
	defer r.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	began, ready := time.Now(), false
	for pause := 50 * time.Millisecond; ctx.Err() == nil; {
		fetching := time.Now()
		var err error
		if !ready {
			err = fault.Wrap(redis.Classify(r.inherit(ctx)), "look for readers of list %q", r.o.List)
			ready = err == nil
		}
		if err == nil {
			err = r.fetch(ctx, emit)
		}
		if ctx.Err() != nil {
			break
		}
		if !fault.Retriable(err) || time.Since(began) >= wellTime {
			return err
		}
		if time.Since(fetching) > time.Second {
			pause = 50 * time.Millisecond
		}
		sleep(ctx, pause)
		pause = min(2*pause, time.Second)
	}
	if r.ctx.Err() != nil {
		return errClosed
	}
	return nil
}

func (r *Reader) join() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Add(1)
	r.readers++
	return true
}

func (r *Reader) leave() {
	r.mu.Lock()
	r.readers--
	r.mu.Unlock()
	r.work.Done()
}

// sleep waits; its end with ctx is for the caller to see.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Close ends the reads, writes the outcomes that are under way and gives what is
// not settled free for others. When ctx ends first they take it a few seconds
// later.
func (r *Reader) Close(ctx context.Context) error {
	r.mu.Lock()
	was := r.closed
	r.closed = true
	r.mu.Unlock()
	if was {
		return nil
	}
	r.cancel()
	done := make(chan struct{})
	go func() {
		r.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close: wait for readers")
	}
	if err := r.acks.Close(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lifetime)
	defer cancel()
	_ = r.rest(ctx, true) // the others see it for themselves
	return nil
}
