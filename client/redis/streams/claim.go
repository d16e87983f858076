package streams

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/fault"
)

// live beats until Close.
func (m *member) live() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.g.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(m.g.ctx, lifetime)
		err := m.pulse(ctx)
		cancel()
		_ = err // the read notices by itself that the server is away
	}
}

// pulse is a beat when somebody reads or something is under way; else the
// member rests.
func (m *member) pulse(ctx context.Context) error {
	m.mu.Lock()
	idle := m.readers == 0 && len(m.under) == len(m.again)+len(m.aside)+len(m.parked)
	failed := m.failed
	m.failed = nil
	m.mu.Unlock()
	for _, n := range failed {
		m.g.acks.Add(n, nil)
	}
	if !idle {
		return m.beat(ctx)
	}
	m.beating.Lock()
	defer m.beating.Unlock()
	if m.last.IsZero() {
		return nil
	}
	m.mu.Lock()
	if m.readers > 0 {
		m.mu.Unlock()
		return nil
	}
	clear(m.under)
	m.again, m.aside, m.parked = nil, nil, nil
	m.mu.Unlock()
	if err := m.rest(ctx); err != nil {
		return err
	}
	m.last = time.Time{}
	return nil
}

// beat shows that we live, keeps what is ours and takes over what is nobody's.
func (m *member) beat(ctx context.Context) error {
	m.beating.Lock()
	defer m.beating.Unlock()
	c := m.g.o.Client
	b := c.B()
	rs := c.DoMulti(ctx,
		b.Set().Key(aliveKey+m.name).Value("1").PxMilliseconds(lifetime.Milliseconds()).Build(),
		b.Xpending().Key(m.stream).Group(m.group).Build(),
		b.XinfoGroups().Key(m.stream).Build(),
		b.XinfoConsumers().Key(m.stream).Group(m.group).Build())
	if err := firstError(rs); err != nil {
		return fault.Wrap(redis.Classify(err), "show presence in group %q of stream %q", m.group, m.stream)
	}
	lapsed := time.Since(m.last) > lifetime
	m.last = time.Now()
	m.position(rs[1], rs[2])
	m.mu.Lock()
	check := m.check || lapsed
	m.check = false
	reading, room, ours := m.readers > 0, len(m.again) < takenMost, len(m.under)
	m.mu.Unlock()
	all, err := consumersOf(rs[3])
	if err != nil {
		return fault.Wrap(redis.Classify(err), "list consumers of stream %q", m.stream)
	}
	if check {
		if err := m.missed(ctx, 0); err != nil {
			m.mu.Lock()
			m.check = true
			m.mu.Unlock()
			return err
		}
	} else if all[m.name].pending > int64(ours) {
		if err := m.missed(ctx, strayAfter); err != nil {
			return err
		}
	}
	if t := m.g.o.Timeout; t > 0 {
		if err := m.refresh(ctx, t/4); err != nil {
			return err
		}
	}
	if !reading || !room {
		return nil
	}
	return m.takeOver(ctx, all)
}

// position notes where the group would be made again: behind the last entry
// before which everything is done.
func (m *member) position(pending, groups rueidis.RedisResult) {
	list, _ := groups.ToArray()
	for i := range list {
		info, err := list[i].AsMap()
		if err != nil {
			continue
		}
		name, newest := info["name"], info["last-delivered-id"]
		if n, _ := name.ToString(); n != m.group {
			continue
		}
		at, _ := newest.ToString()
		m.mu.Lock()
		m.newest, m.at = at, at
		if p, err := pending.ToArray(); err == nil && len(p) > 1 {
			if lowest, err := p[1].ToString(); err == nil && lowest != "" {
				m.at = before(lowest)
			}
		}
		m.mu.Unlock()
	}
}

// recreate makes a group that is gone where it was; from the beginning when the
// stream is another one.
func (m *member) recreate(ctx context.Context) error {
	m.mu.Lock()
	at, newest := m.at, m.newest
	m.mu.Unlock()
	c := m.g.o.Client
	info, err := c.Do(ctx, c.B().XinfoStream().Key(m.stream).Build()).AsMap()
	if _, said := rueidis.IsRedisErr(err); err != nil && !said {
		return fault.Wrap(redis.Classify(err), "look at stream %q", m.stream)
	}
	last, there := info["last-generated-id"]
	if id, _ := last.ToString(); !there || compareID(id, newest) < 0 {
		at = "0"
	}
	return m.g.create(ctx, m.stream, m.group, at)
}

// pending is one row of the group's list.
type pending struct {
	id    string
	count int
}

// list returns up to a page of a consumer's entries that are idle for a while.
func (m *member) list(ctx context.Context, consumer string, idle time.Duration, from string) ([]pending, error) {
	c := m.g.o.Client
	rows, err := c.Do(ctx, c.B().Xpending().Key(m.stream).Group(m.group).Idle(idle.Milliseconds()).
		Start(from).End("+").Count(page).Consumer(consumer).Build()).ToArray()
	if err != nil {
		return nil, fault.Wrap(redis.Classify(err), "list pending entries of stream %q", m.stream)
	}
	all := make([]pending, 0, len(rows))
	for i := range rows {
		if row, err := rows[i].ToArray(); err == nil && len(row) == 4 {
			id, _ := row[0].ToString()
			count, _ := row[3].AsInt64()
			all = append(all, pending{id, max(int(count), 1)})
		}
	}
	return all, nil
}

// claim makes entries ours that have been idle for min ms and returns those
// that now are, with idle ms from now. It does not count as a delivery.
func (m *member) claim(ctx context.Context, rows []pending, least, idle int64) ([]pending, error) {
	byCount := map[int][]string{}
	for _, p := range rows {
		byCount[p.count] = append(byCount[p.count], p.id)
	}
	var mine []pending
	c := m.g.o.Client
	for _, count := range slices.Sorted(maps.Keys(byCount)) {
		ids, err := c.Do(ctx, c.B().Xclaim().Key(m.stream).Group(m.group).Consumer(m.name).MinIdleTime(strconv.FormatInt(least, 10)).
			Id(byCount[count]...).Idle(idle).Retrycount(int64(count)).Justid().Build()).AsStrSlice()
		if err != nil && !rueidis.IsRedisNil(err) {
			return mine, fault.Wrap(redis.Classify(err), "claim entries of stream %q", m.stream)
		}
		for _, id := range ids {
			mine = append(mine, pending{id, count})
		}
	}
	return mine, nil
}

// refresh keeps entries of ours from looking abandoned to those who look at
// nothing but the time.
func (m *member) refresh(ctx context.Context, idle time.Duration) error {
	rows, err := m.list(ctx, m.name, idle, "-")
	if err == nil && len(rows) > 0 {
		_, err = m.claim(ctx, rows, 0, 0)
	}
	return err
}

// missed finds entries that are ours and never reached us, those that have been
// for a while.
func (m *member) missed(ctx context.Context, while time.Duration) error {
	for from := "-"; ; {
		rows, err := m.list(ctx, m.name, while, from)
		if err != nil {
			return err
		}
		m.own(rows)
		if len(rows) < page {
			return nil
		}
		from = "(" + rows[len(rows)-1].id
	}
}

// own notes entries that are ours from now on.
func (m *member) own(rows []pending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range rows {
		if m.under[p.id] != nil {
			continue
		}
		h := &held{m: m, id: p.id, attempt: p.count, bare: true}
		m.under[p.id] = h
		m.again = append(m.again, h)
	}
	if len(rows) > 0 {
		m.ring()
	}
}

// consumer is what the server knows of one.
type consumer struct{ pending, idle int64 }

// consumersOf reads the answer to XINFO CONSUMERS.
func consumersOf(r rueidis.RedisResult) (map[string]consumer, error) {
	list, err := r.ToArray()
	all := make(map[string]consumer, len(list))
	for i := range list {
		info, err := list[i].AsMap()
		if err != nil {
			continue
		}
		nameOf, countOf, idleOf := info["name"], info["pending"], info["idle"]
		name, _ := nameOf.ToString()
		count, _ := countOf.AsInt64()
		idle, _ := idleOf.AsInt64()
		all[name] = consumer{count, idle}
	}
	return all, err
}

// takeOver claims the entries of consumers that live no more.
func (m *member) takeOver(ctx context.Context, all map[string]consumer) error {
	c := m.g.o.Client
	for name, other := range all {
		ours := strings.HasPrefix(name, prefix)
		if name == m.name || other.pending == 0 && (!ours || other.idle < time.Minute.Milliseconds()) {
			continue
		}
		least := m.g.o.Timeout
		if ours {
			alive, err := c.Do(ctx, c.B().Exists().Key(aliveKey+name).Build()).AsInt64()
			if err != nil {
				return fault.Wrap(redis.Classify(err), "look for consumer %q", name)
			}
			if alive > 0 {
				continue
			}
			least = claimIdle * time.Millisecond
		}
		if err := m.takeFrom(ctx, name, least, other.pending, ours); err != nil {
			return err
		}
	}
	return nil
}

// takeFrom claims what one consumer left, or forgets one that left nothing.
func (m *member) takeFrom(ctx context.Context, name string, least time.Duration, count int64, ours bool) error {
	if least == 0 {
		return nil
	}
	if count == 0 {
		return m.forget(ctx, name)
	}
	rows, err := m.list(ctx, name, least, "-")
	if err != nil || len(rows) == 0 {
		return err
	}
	mine, err := m.claim(ctx, rows, least.Milliseconds(), 0)
	m.own(mine)
	if ours && err == nil {
		m.g.o.Logger.Info("Took over entries of a consumer that is gone", "stream", m.stream, "group", m.group, "entries", len(mine))
	}
	return err
}

// deleteEmpty deletes a consumer that has nothing pending, which must not come
// between: deleting would lose it.
const deleteEmpty = `local p = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if #p == 0 then return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
return -1`

// forget removes a consumer's name. Who may not run scripts leaves it there.
func (m *member) forget(ctx context.Context, name string) error {
	c := m.g.o.Client
	err := c.Do(ctx, c.B().Eval().Script(deleteEmpty).Numkeys(1).Key(m.stream).Arg(m.group, name).Build()).Error()
	if _, said := rueidis.IsRedisErr(err); said {
		return nil
	}
	return err
}

// rest gives what is ours free for all and ends our presence.
func (m *member) rest(ctx context.Context) error {
	for from := "-"; ; {
		rows, err := m.list(ctx, m.name, 0, from)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			if _, err := m.claim(ctx, rows, 0, handedIdle); err != nil {
				return err
			}
		}
		if len(rows) < page {
			break
		}
		from = "(" + rows[len(rows)-1].id
	}
	c := m.g.o.Client
	if err := c.Do(ctx, c.B().Del().Key(aliveKey+m.name).Build()).Error(); err != nil {
		return err
	}
	return m.forget(ctx, m.name)
}

// load fetches the bodies of entries that come again. One that somebody else
// has now is not ours to hand out; one that is gone from the stream is done.
func (m *member) load(ctx context.Context, batch []*held) ([]*held, error) {
	c := m.g.o.Client
	var cmds rueidis.Commands
	for _, h := range batch {
		if h.bare {
			cmds = append(cmds,
				c.B().Xpending().Key(m.stream).Group(m.group).Start(h.id).End(h.id).Count(1).Build(),
				c.B().Xrange().Key(m.stream).Start(h.id).End(h.id).Build(),
				c.B().Zscore().Key(m.dues()).Member(h.id).Build())
		}
	}
	if len(cmds) == 0 {
		return batch, nil
	}
	rs := c.DoMulti(ctx, cmds...)
	if err := firstError(rs); err != nil && !strings.HasPrefix(err.Error(), "NOGROUP") {
		return nil, redis.Classify(err)
	}
	ready := batch[:0:0]
	for _, h := range batch {
		if h.bare {
			r := rs[:3]
			rs = rs[3:]
			if !m.loaded(h, r) {
				continue
			}
		}
		ready = append(ready, h)
	}
	return ready, nil
}

// loaded fills in an entry and tells whether it is to be handed out.
func (m *member) loaded(h *held, r []rueidis.RedisResult) bool {
	rows, _ := r[0].ToArray()
	mine := false
	if len(rows) == 1 {
		row, _ := rows[0].ToArray()
		if len(row) == 4 {
			owner, _ := row[1].ToString()
			mine = owner == m.name
		}
	}
	entries, err := r[1].AsXRangeSlices()
	if !mine || err != nil {
		m.mu.Lock()
		delete(m.under, h.id)
		m.mu.Unlock()
		return false
	}
	if len(entries) == 0 {
		m.g.o.Logger.Warn("An entry was removed from its stream before it was done", "stream", m.stream, "group", m.group, "entry", h.id)
		m.g.acks.Add(note{m: m, id: h.id, attempt: h.attempt}, nil)
		return false
	}
	if due, err := r[2].AsFloat64(); err == nil && h.due.IsZero() {
		if at := time.UnixMilli(int64(due)); time.Until(at) > 0 {
			m.mu.Lock()
			h.due = at
			m.park(h)
			m.mu.Unlock()
			return false
		}
	}
	h.fill(&Entry{entries[0].ID, entries[0].FieldValues})
	return true
}

// parse reads an id such as 1700000000000-3.
func parse(id string) (ms, seq uint64) {
	a, b, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(a, 10, 64)
	seq, _ = strconv.ParseUint(b, 10, 64)
	return ms, seq
}

// compareID orders ids.
func compareID(a, b string) int {
	am, as := parse(a)
	bm, bs := parse(b)
	return cmp.Or(cmp.Compare(am, bm), cmp.Compare(as, bs))
}

// before returns the id that stands before another.
func before(id string) string {
	ms, seq := parse(id)
	switch {
	case seq > 0:
		seq--
	case ms > 0:
		ms, seq = ms-1, math.MaxUint64
	}
	return strconv.FormatUint(ms, 10) + "-" + strconv.FormatUint(seq, 10)
}
