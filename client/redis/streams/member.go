package streams

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// member is this process in one group of one stream.
type member struct {
	g             *Groups
	stream, group string
	name          string
	decode        DecodeFunc
	wake          chan struct{} // something is in again or parked
	handing       sync.Mutex    // one batch at a time, so that what comes again is not overtaken
	beating       sync.Mutex    // one beat at a time
	last          time.Time     // of the last beat; guarded by beating

	mu      sync.Mutex // guards what follows
	readers int
	under   map[string]*held // every entry that is ours, by id
	again   []*held          // to be handed out now
	aside   []*held          // to be handed out with the next read
	parked  []*held          // waiting for a retry, the first due first
	failed  []note           // not written: tried with the next beat
	check   bool             // there may be entries of ours that never reached us
	at      string           // where the group would be made again
	newest  string           // id that the group had read up to
}

// held is one delivery of an entry.
type held struct {
	cloudevents.Delivery
	m       *member
	id      string
	attempt int
	due     time.Time
	bare    bool // the body is to be fetched
	settled atomic.Bool
}

func (m *member) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *member) leaveRead() {
	m.mu.Lock()
	m.readers--
	m.check = true // what was on its way when the read was cut
	m.mu.Unlock()
	m.ring()
}

// read is one Read: it joins the group when the server is there, and goes on
// until ctx ends or something cannot be helped by waiting.
func (m *member) read(ctx context.Context, emit cloudevents.EmitFunc) error {
	m.mu.Lock()
	m.again, m.aside = append(m.again, m.aside...), nil
	m.mu.Unlock()
	feedCtx, stop := context.WithCancelCause(ctx)
	var feeder sync.WaitGroup
	defer feeder.Wait()
	defer stop(nil)
	started, began := false, time.Now()
	for pause := 50 * time.Millisecond; ctx.Err() == nil; {
		err := m.enter(ctx)
		if err == nil {
			pause = 50 * time.Millisecond
			if !started {
				err = m.inherit(ctx, emit)
			}
		}
		if err == nil {
			_, err = m.feedOnce(ctx, emit)
		}
		if err == nil && ctx.Err() == nil {
			if !started {
				started = true
				feeder.Go(func() { stop(m.feed(feedCtx, emit)) })
			}
			err = m.fetch(feedCtx, emit)
		}
		if cause := context.Cause(feedCtx); ctx.Err() == nil && feedCtx.Err() != nil && cause != nil {
			return cause
		}
		if ctx.Err() != nil {
			return nil
		}
		// A source that fails seldom is run again at once: then it is seen to
		// be broken. Else waiting here is sooner.
		// A group that is gone is made again by enter.
		lost := fault.KindOf(err) == fault.NotFound
		if !lost && (!fault.Retriable(err) || time.Since(began) >= wellTime) {
			return err
		}
		m.sleep(ctx, pause)
		pause = min(2*pause, time.Second)
	}
	return nil
}

// sleep waits; its end with ctx is for the caller to see.
func (m *member) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// enter makes the group when it is not there and shows that we live, before
// anything is read.
func (m *member) enter(ctx context.Context) error {
	m.mu.Lock()
	known := m.at != ""
	m.check = true
	m.mu.Unlock()
	if known {
		if err := m.recreate(ctx); err != nil {
			return err
		}
	} else if err := m.g.Prepare(ctx, m.stream, m.group); err != nil {
		return err
	}
	return m.beat(ctx)
}

// fetch reads new entries and hands them out.
func (m *member) fetch(ctx context.Context, emit cloudevents.EmitFunc) error {
	c, count := m.g.o.Client, int64(m.g.o.Count)
	for ctx.Err() == nil {
		if m.full() {
			m.sleep(ctx, 50*time.Millisecond)
			continue
		}
		cmd := c.B().Xreadgroup().Group(m.group, m.name).Count(count).Block(readBlock.Milliseconds()).Streams().Key(m.stream).Id(">").Build()
		blocking, done := c.Blocking(ctx, readBlock)
		entries, err := entriesOf(c.Do(blocking, cmd.UnblockOnCancel()))
		done()
		if ctx.Err() != nil && err != nil {
			return nil
		}
		if err != nil {
			return fault.Wrap(redis.Classify(err), "read stream %q", m.stream)
		}
		batch := m.take(entries)
		size := 0
		for _, h := range batch {
			size += len(h.Body)
		}
		if len(batch) > 0 {
			count = min(int64(m.g.o.Count), max(1, readBytes/int64(size/len(batch)+1)))
		}
		m.handing.Lock()
		err = m.hand(ctx, batch, emit)
		m.handing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *member) full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.parked) >= parkedMost
}

// entriesOf reads the answer to a read of one stream; none is no error.
func entriesOf(r rueidis.RedisResult) ([]rueidis.XRangeSlice, error) {
	all, err := r.AsXReadSlices()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	for _, entries := range all {
		return entries, err
	}
	return nil, err
}

// take notes new entries as ours. One that is under way already, as when the
// group was made again, is not handed out beside that.
func (m *member) take(entries []rueidis.XRangeSlice) []*held {
	batch := make([]*held, 0, len(entries))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range entries {
		if m.under[entries[i].ID] != nil {
			continue
		}
		h := &held{m: m, id: entries[i].ID, attempt: 1}
		h.fill(&Entry{entries[i].ID, entries[i].FieldValues})
		m.under[h.id] = h
		batch = append(batch, h)
	}
	return batch
}

// fill makes the delivery of an entry.
func (h *held) fill(e *Entry) {
	h.m.decode(&h.Delivery, e)
	h.Attempt, h.Settle, h.bare = h.attempt, h.settle, false
}

// hand gives deliveries to emit; those not taken stay ours.
func (m *member) hand(ctx context.Context, batch []*held, emit cloudevents.EmitFunc) error {
	for i, h := range batch {
		err := ctx.Err()
		if err == nil {
			err = emit(ctx, &h.Delivery)
		}
		if err == nil {
			continue
		}
		m.mu.Lock()
		m.again = append(m.again, batch[i:]...)
		m.mu.Unlock()
		m.ring()
		if ctx.Err() != nil {
			return nil
		}
		return fault.Wrap(err, "hand over entry")
	}
	return nil
}

// feed hands out what comes again: left, due and taken over.
func (m *member) feed(ctx context.Context, emit cloudevents.EmitFunc) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait, err := m.feedOnce(ctx, emit)
		if err != nil {
			return err
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-timer.C:
		}
	}
	return nil
}

// feedOnce hands out what comes again now, and returns how long there is nothing.
func (m *member) feedOnce(ctx context.Context, emit cloudevents.EmitFunc) (time.Duration, error) {
	m.handing.Lock()
	defer m.handing.Unlock()
	for ctx.Err() == nil {
		batch, wait := m.ready()
		if len(batch) == 0 {
			return wait, nil
		}
		loaded, err := m.load(ctx, batch)
		if err != nil { // the server is away
			m.mu.Lock()
			m.again = append(m.again, batch...)
			m.mu.Unlock()
			return 200 * time.Millisecond, nil
		}
		if err := m.hand(ctx, loaded, emit); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// ready takes what can be handed out now, or says how long there is nothing.
func (m *member) ready() (batch []*held, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	n := 0
	for n < len(m.parked) && n < 100 && !m.parked[n].due.After(now) {
		n++
	}
	batch = append(m.again, m.parked[:n]...)
	m.parked = slices.Delete(m.parked, 0, n)
	m.again = nil
	slices.SortFunc(batch, func(a, b *held) int { return compareID(a.id, b.id) })
	if len(m.parked) > 0 {
		return batch, max(time.Until(m.parked[0].due), time.Millisecond)
	}
	return batch, time.Hour
}

// park puts h aside until it is due; the caller holds mu.
func (m *member) park(h *held) {
	at, _ := slices.BinarySearchFunc(m.parked, h, func(a, b *held) int { return a.due.Compare(b.due) })
	m.parked = slices.Insert(m.parked, at, h)
	m.ring()
}

// settle is the delivery's Settle.
func (h *held) settle(o cloudevents.Outcome) {
	if h.settled.Swap(true) {
		return
	}
	m := h.m
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		m.g.acks.Add(note{m: m, id: h.id, attempt: h.attempt}, nil)
	case cloudevents.Retry:
		after := o.After
		if after <= 0 {
			after = min(minBackoff<<min(h.attempt-1, 10), maxBackoff)
		}
		next := &held{m: m, id: h.id, attempt: h.attempt + 1, due: time.Now().Add(after), bare: true}
		m.mu.Lock()
		m.under[h.id] = next
		m.park(next)
		m.mu.Unlock()
		m.g.acks.Add(note{m: m, id: h.id, attempt: next.attempt, due: next.due}, nil)
	default:
		next := &held{Delivery: h.Delivery, m: m, id: h.id, attempt: h.attempt}
		next.Settle = next.settle
		m.mu.Lock()
		m.under[h.id] = next
		if m.g.o.Aside {
			m.aside = append(m.aside, next)
		} else {
			m.again = append(m.again, next)
		}
		m.mu.Unlock()
		m.ring()
	}
}

// note is what is to be written of an entry: that it is done, or when it is due.
type note struct {
	m       *member
	id      string
	attempt int
	due     time.Time // zero: done
}

// write sends notes, the done ones of a member in one command. What fails is
// kept for the next beat.
func (g *Groups) write(ctx context.Context, notes []note) []error {
	done := map[*member][]string{}
	var cmds rueidis.Commands
	b := g.o.Client.B()
	for _, n := range notes {
		m := n.m
		if n.due.IsZero() {
			done[m] = append(done[m], n.id)
			if n.attempt > 1 {
				cmds = append(cmds, b.Zrem().Key(m.dues()).Member(n.id).Build())
			}
			continue
		}
		cmds = append(cmds, b.Xclaim().Key(m.stream).Group(m.group).Consumer(m.name).MinIdleTime("0").Id(n.id).
			Retrycount(int64(n.attempt)).Justid().Build(),
			b.Zadd().Key(m.dues()).ScoreMember().ScoreMember(float64(n.due.UnixMilli()), n.id).Build(),
			b.Expire().Key(m.dues()).Seconds(dueKept).Build())
	}
	for m, ids := range done {
		cmds = append(cmds, b.Xack().Key(m.stream).Group(m.group).Id(ids...).Build())
	}
	err := firstError(g.o.Client.DoMulti(ctx, cmds...))
	for _, n := range notes {
		n.m.wrote(n, err)
	}
	return nil
}

// wrote forgets an entry that is done, or keeps the note. A group that is gone
// has nothing to be told.
func (m *member) wrote(n note, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil && !strings.HasPrefix(err.Error(), "NOGROUP"):
		m.failed = append(m.failed, n)
	case n.due.IsZero():
		delete(m.under, n.id)
	}
}

func firstError(rs []rueidis.RedisResult) error {
	for _, r := range rs {
		if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
	}
	return nil
}

func (m *member) dues() string { return dueKey + m.stream + ":" + m.group }
