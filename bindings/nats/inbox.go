package nats

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// held is one message of core NATS. This process has the only copy.
type held struct {
	msg     *nats.Msg
	id      string
	time    time.Time
	attempt int
	timer   *time.Timer // while it waits for a retry
}

func (x *held) size() int64 { return int64(len(x.msg.Data)) + 512 }

// inbox holds what came from the server until it is settled.
type inbox struct {
	most      int
	mostBytes int64
	log       *slog.Logger
	wake      chan struct{} // something is ready, or the inbox is closed

	mu      sync.Mutex
	ready   []*held
	left    []*held            // for the next Read
	waiting map[*held]struct{} // for their time
	count   int                // of all, those that are handed out as well
	bytes   int64
	dropped int // since it was last logged
	full    bool
	closed  bool
}

func newInbox(most int, mostBytes int64, log *slog.Logger) *inbox {
	return &inbox{most: most, mostBytes: mostBytes, log: log, wake: make(chan struct{}, 1), waiting: map[*held]struct{}{}}
}

// push takes a message that came, or drops it when there is no room. The log
// tells of it when it begins and when it is over.
func (b *inbox) push(x *held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if b.count >= b.most || b.bytes+x.size() > b.mostBytes && b.count > 0 {
		b.dropped++
		if !b.full {
			b.full = true
			b.log.Warn("messages of NATS are lost: they come faster than they are settled", "subject", x.msg.Subject, "held", b.count)
		}
		return
	}
	b.count++
	b.bytes += x.size()
	b.ready = append(b.ready, x)
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// pop waits for the next; nil when ctx ended or the inbox is closed.
func (b *inbox) pop(ctx context.Context) *held {
	for ctx.Err() == nil {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return nil
		}
		if len(b.ready) > 0 {
			x := b.ready[0]
			b.ready[0] = nil
			b.ready = b.ready[1:]
			b.mu.Unlock()
			return x
		}
		b.mu.Unlock()
		select {
		case <-b.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// restore makes what was left ready again, before what came since.
func (b *inbox) restore() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = append(slices.Clone(b.left), b.ready...)
	b.left = nil
}

// leave keeps x for the next Read; false when there will be none.
func (b *inbox) leave(x *held) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.left = append(b.left, x)
	}
	return !b.closed
}

// later makes x ready again after a while; false when there is nobody for it.
func (b *inbox) later(x *held, after time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	x.attempt++
	b.waiting[x] = struct{}{}
	x.timer = time.AfterFunc(after, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, ok := b.waiting[x]; ok {
			delete(b.waiting, x)
			b.ready = append(b.ready, x)
			b.signal()
		}
	})
	return true
}

// done forgets x.
func (b *inbox) done(x *held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count--
	b.bytes -= x.size()
	if b.full && b.count <= b.most/2 && b.bytes <= b.mostBytes/2 {
		b.log.Warn("messages of NATS were lost: they came faster than they were settled", "count", b.dropped)
		b.full, b.dropped = false, 0
	}
}

// close returns what nobody will get any more.
func (b *inbox) close() []*held {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.signal()
	rest := slices.Concat(b.ready, b.left)
	for x := range b.waiting {
		x.timer.Stop()
		rest = append(rest, x)
	}
	b.ready, b.left = nil, nil
	clear(b.waiting)
	if b.dropped > 0 {
		b.log.Warn("messages of NATS were lost: they came faster than they were settled", "count", b.dropped)
	}
	return rest
}
