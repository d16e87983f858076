package nats

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// taken is one message that the server waits for an answer to.
type taken struct {
	cloudevents.Delivery
	held       *held
	at         *place
	born       time.Time // the stream's
	reply      string
	seq        uint64 // in the stream
	delivered  int    // as the server counts
	settled    atomic.Bool
	round      *round
	epoch      uint64        // of held when the server was asked for it
	kept       atomic.Bool   // left, and the round is not over
	done       chan struct{} // closed by Settle; nil unless somebody waits
	prev, next *taken        // in held, the oldest first; guarded by its lock
}

// round is one reading of one stream. Guarded by the lock of held.
type round struct {
	over bool
	left []*taken // what goes back when it is over
}

// answer is one on its way to the server.
type answer struct {
	at    *place
	born  time.Time
	reply string
	body  []byte
}

// place is what is known of one durable consumer, across deletions. Guarded by
// the lock of held.
type place struct {
	born   time.Time         // the stream's
	top    uint64            // the highest sequence taken
	given  map[uint64]int    // given back by sequence: how often that was no attempt
	static map[string]string // the metadata of messages without headers, by subject
	topic  string
}

// held is everything that the server waits for an answer to. It extends their
// time as long as they are held, and sends the answers.
type held struct {
	ctx     context.Context
	nc      *nats.Conn
	o       ConsumerOptions
	warn    func(msg string, args ...any)
	cut     context.CancelFunc // ends writing
	cutting context.Context    // ends when close loses its patience
	writes  sync.WaitGroup

	mu     sync.Mutex
	first  taken // of a ring, the oldest next
	places map[string]*place
	every  time.Duration // between extensions; 0 before there is a consumer
	beat   *time.Ticker
	ended  chan struct{} // closed when extending has ended
	shut   bool
	// answers wait for the one goroutine that writes them.
	answers []answer
	writing bool

	start  time.Time
	beatAt atomic.Int64 // when time was extended last, since start
	lapse  atomic.Int64 // how long that may be ago
	epoch  atomic.Uint64
}

const mostGiven = 65536 // sequences remembered of one consumer

func newHeld(ctx context.Context, nc *nats.Conn, o ConsumerOptions, warn func(string, ...any)) *held {
	h := &held{ctx: ctx, nc: nc, o: o, warn: warn, places: map[string]*place{}, start: time.Now()}
	h.first.prev, h.first.next = &h.first, &h.first
	h.cutting, h.cut = context.WithCancel(context.WithoutCancel(ctx))
	return h
}

// place returns what is known of a consumer; a new incarnation of its stream
// begins afresh.
func (h *held) place(key string, born time.Time) *place {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[key]
	if p == nil {
		p = &place{born: born, given: map[uint64]int{}, static: map[string]string{}}
		h.places[key] = p
	}
	if !p.born.Equal(born) {
		p.born, p.top = born, 0
		clear(p.given)
	}
	return p
}

// resume is the sequence where a consumer that was deleted goes on; zero when
// nothing was read.
func (p *place) resume() uint64 {
	if p.top == 0 {
		return 0
	}
	from := p.top + 1
	for seq := range p.given {
		from = min(from, seq)
	}
	return from
}

// now is the epoch: another one when this process stood still, or was without a
// connection, for so long that the server may have given to others what is held
// here.
func (h *held) now() uint64 {
	if h.stoodStill() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.stoodStill() {
			h.epoch.Add(1) // first, for who sees the new time sees the new epoch
			h.beatAt.Store(int64(time.Since(h.start)))
		}
	}
	return h.epoch.Load()
}

func (h *held) stoodStill() bool {
	lapse := h.lapse.Load()
	return lapse > 0 && int64(time.Since(h.start))-h.beatAt.Load() > lapse
}

// forgot tells whether a message is of an epoch that is over. Then it is let go
// without an answer, for it may be somebody else's by now.
func (h *held) forgot(x *taken) bool {
	if x.epoch == h.now() {
		return false
	}
	if x.settled.CompareAndSwap(false, true) {
		h.mu.Lock()
		h.unlink(x)
		if x.at.born.Equal(x.born) {
			x.at.note(x.seq, 1)
		}
		h.mu.Unlock()
		if x.done != nil {
			close(x.done)
		}
	}
	return true
}

// take makes a delivery of a message and holds it; nil for one that is none, or
// is held already.
func (h *held) take(b *binding, now *round, epoch uint64, m *nats.Msg) *taken {
	meta, err := m.Metadata()
	if err != nil {
		h.warn("message of NATS is not from a stream", "subject", m.Subject, "error", err)
		return nil
	}
	x := &taken{
		held: h, at: b.place, born: b.born, reply: m.Reply, seq: meta.Sequence.Stream,
		delivered: int(min(meta.NumDelivered, 1<<30)), round: now, epoch: epoch,
	}
	if h.o.Build != nil {
		h.o.Build(m, meta, &x.Delivery)
	}
	x.Body = m.Data
	x.Settle = x.settle
	h.mu.Lock()
	defer h.mu.Unlock()
	if x.delivered == 1 && x.seq <= b.place.top && h.holds(x) {
		return nil
	}
	x.Attempt = max(1, x.delivered-b.place.given[x.seq])
	b.place.top = max(b.place.top, x.seq)
	if h.o.Build == nil {
		x.Topic = m.Subject
		x.Metadata, x.Key = b.place.metadata(x.Topic, m.Header)
	}
	x.prev, x.next = h.first.prev, &h.first
	x.prev.next, h.first.prev = x, x
	return x
}

// holds tells whether the message is held already. nats-server 2.9 delivers the
// last message of a stream that was given back a second time, as if it were new;
// one answer is enough for both. The lock is held.
func (h *held) holds(x *taken) bool {
	for y := h.first.prev; y != &h.first; y = y.prev {
		if y.seq == x.seq && y.at == x.at && y.born.Equal(x.born) {
			return true
		}
	}
	return false
}

// metadata of a message: that of its headers and the subject. Messages of one
// subject without headers share it; nobody changes it.
func (p *place) metadata(subject string, header nats.Header) (m map[string]string, key string) {
	if len(header) == 0 || len(header) == 1 && header[nats.MsgIdHdr] != nil {
		if p.topic != subject {
			p.topic, p.static = subject, map[string]string{"Topic": subject}
		}
		return p.static, ""
	}
	m = make(map[string]string, len(header)+1)
	key = Metadata(header, m)
	m["Topic"] = subject
	return m, key
}

func ackBody() []byte  { return []byte("+ACK") }
func workBody() []byte { return []byte("+WPI") }

// settle implements Delivery.Settle.
func (x *taken) settle(o cloudevents.Outcome) {
	if !x.settled.CompareAndSwap(false, true) {
		return
	}
	if o.Verdict != cloudevents.Leave || !x.held.keep(x) {
		x.finish(o)
	}
	if x.done != nil {
		close(x.done)
	}
}

// keep holds on to what was left while its round lasts.
func (h *held) keep(x *taken) bool {
	if !h.o.LeftStays {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if x.round.over || h.shut {
		return false
	}
	x.kept.Store(true)
	x.round.left = append(x.round.left, x)
	return true
}

// over ends a round and gives back what was left in it.
func (h *held) over(r *round) {
	h.mu.Lock()
	r.over = true
	left := r.left
	r.left = nil
	h.mu.Unlock()
	for _, x := range left {
		x.kept.Store(false)
		x.finish(cloudevents.Left(""))
	}
}

// finish tells the server.
func (x *taken) finish(o cloudevents.Outcome) {
	h := x.held
	body, given := ackBody(), -1
	switch o.Verdict {
	case cloudevents.Retry:
		body, given = h.retry(x, o)
	case cloudevents.Leave:
		body, given = []byte("-NAK"), 1
	}
	h.mu.Lock()
	h.unlink(x)
	if x.at.born.Equal(x.born) {
		x.at.note(x.seq, given)
	}
	begin := false
	if !h.shut {
		h.answers = append(h.answers, answer{x.at, x.born, x.reply, body})
		if begin = !h.writing; begin {
			h.writing = true
			h.writes.Add(1)
		}
	}
	h.mu.Unlock()
	if begin {
		go h.write()
	}
}

// write sends answers until there are none: those that came meanwhile go
// together. Nobody who settles waits for the network.
func (h *held) write() {
	defer h.writes.Done()
	var list []answer
	for {
		clear(list)
		h.mu.Lock()
		list, h.answers = h.answers, list[:0]
		if len(list) == 0 {
			h.writing = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		h.send(list)
	}
}

// note remembers a message that was given back, uncounted or not, or forgets one
// that is done.
func (p *place) note(seq uint64, given int) {
	switch {
	case given < 0:
		if len(p.given) > 0 {
			delete(p.given, seq)
		}
	case len(p.given) < mostGiven:
		p.given[seq] += given
	}
}

// unlink takes x out of the ring.
func (h *held) unlink(x *taken) {
	if x.next != nil {
		x.prev.next, x.next.prev = x.next, x.prev
		x.prev, x.next = nil, nil
	}
}

// retry is the answer that gives a message back with a delay, or gives it up when
// it had all its attempts.
func (h *held) retry(x *taken, o cloudevents.Outcome) (body []byte, given int) {
	if h.o.MaxDeliver > 0 && x.Attempt >= h.o.MaxDeliver {
		h.warn("message given up: it had all its attempts (maxDeliver)",
			"subject", x.Topic, "sequence", x.seq, "attempt", x.Attempt, "reason", o.Reason)
		return []byte("+TERM"), -1
	}
	after := o.After
	if n := len(h.o.BackOff); n > 0 {
		after = max(after, h.o.BackOff[min(x.Attempt, n)-1])
	}
	if after <= 0 {
		return []byte("-NAK"), 0
	}
	return fmt.Appendf(nil, `-NAK {"delay": %d}`, after.Nanoseconds()), 0
}

// putBack gives back what was never handed out.
func (h *held) putBack(list []*taken) {
	for _, x := range list {
		if !h.forgot(x) {
			x.settle(cloudevents.Left("not handed out"))
		}
	}
}

// send writes answers. Those that cannot be sent now wait for the connection;
// those for a stream that was made anew are not sent at all.
func (h *held) send(list []answer) {
	for i := range list {
		for wait := reconnectFirst; !h.stale(&list[i]); wait = min(2*wait, reconnectMost) {
			if h.nc.Publish(list[i].reply, list[i].body) == nil || h.nc.IsClosed() {
				break
			}
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-h.cutting.Done():
				t.Stop()
				return
			}
		}
	}
}

func (h *held) stale(a *answer) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !a.at.born.Equal(a.born)
}

// heartbeat sees to it that what is held is extended well within wait.
func (h *held) heartbeat(wait time.Duration) {
	every := max(wait/4, 5*time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut || h.every > 0 && h.every <= every {
		return
	}
	h.every = every
	// What came just after a beat is extended with the second one after it.
	h.lapse.Store(int64(3 * every))
	if h.beat != nil {
		h.beat.Reset(every)
		return
	}
	h.beat, h.ended = time.NewTicker(every), make(chan struct{})
	h.beatAt.Store(int64(time.Since(h.start)))
	go h.extend(h.beat, h.ended)
}

// extend tells the server about everything that is still held, until ctx ends.
func (h *held) extend(beat *time.Ticker, ended chan struct{}) {
	defer close(ended)
	defer beat.Stop()
	before := map[*taken]bool{} // held at the last beat
	var late []*taken
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-beat.C:
		}
		epoch := h.now()
		late = late[:0]
		now := map[*taken]bool{}
		h.mu.Lock()
		for x := h.first.next; x != &h.first; x = x.next {
			now[x] = true
			if before[x] && x.epoch == epoch && x.at.born.Equal(x.born) {
				late = append(late, x)
			}
		}
		if h.nc.IsConnected() {
			h.beatAt.Store(int64(time.Since(h.start)))
		}
		h.mu.Unlock()
		before = now
		for _, x := range late {
			if x.settled.Load() && !x.kept.Load() {
				continue // it would undo the delay of a retry
			}
			if h.nc.Publish(x.reply, workBody()) != nil {
				break // no connection: the next beat tries again
			}
		}
		clear(late)
	}
}

// close gives back what is held and waits until all answers are with the server.
func (h *held) close(ctx context.Context) error {
	h.mu.Lock()
	var rest []*taken
	for x := h.first.next; x != &h.first; x = x.next {
		rest = append(rest, x)
	}
	ended := h.ended
	h.mu.Unlock()
	h.putBack(rest)
	h.mu.Lock()
	h.shut = true
	h.mu.Unlock()
	if ended != nil {
		<-ended
	}
	defer h.cut()
	if h.nc.IsClosed() {
		h.writes.Wait()
		return nil
	}
	if !h.nc.IsConnected() { // nobody to tell: the server will find out by itself
		h.cut()
		h.writes.Wait()
		return nil
	}
	defer context.AfterFunc(ctx, h.cut)()
	h.writes.Wait()
	if err := ctx.Err(); err != nil {
		return fault.Wrap(err, "send acknowledgements")
	}
	return fault.Wrap(Classify(h.nc.FlushWithContext(flushing(ctx))), "flush acknowledgements")
}

// flushing is ctx; the library wants a deadline.
func flushing(ctx context.Context) context.Context {
	if _, ok := ctx.Deadline(); ok {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	context.AfterFunc(ctx, cancel)
	return ctx
}
