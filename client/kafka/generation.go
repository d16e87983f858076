package kafka

import (
	"context"
	"maps"
	"time"

	"github.com/segmentio/kafka-go"
)

// generation is the work in one generation of the group. With sticky shares the
// member reads on at its end, and finds out in the next one what it still has.
// Else, and when the member ends, nothing is handed out any more then, what is
// under way has a moment to be settled, and all that is done is committed before
// the group shares out its partitions.
func (m *member) generation(ended context.Context, gen *kafka.Generation) {
	if ended.Err() != nil {
		return // it was over before it began: the next one tells more
	}
	if err := m.assign(m.ctx, gen); err != nil {
		m.lose()
		if !again(err) || isMissing(err) {
			m.fail(classify(err))
		}
		_ = pause(m.ctx, 3) // and then the group is joined again
		return
	}
	for _, p := range m.held() {
		if !p.moving.Load() {
			m.read(p)
		}
	}
	m.watch(ended, gen)
	if !m.c.options.sticky() || m.over() {
		halt(m.held()...)
		if m.ctx.Err() == nil {
			m.drain(gen)
		}
	}
	_ = m.commit(gen, m.held()) // what was not comes again
	m.note(gen)
}

// assign makes the partitions of a generation. One that the member had before,
// and nobody committed since, goes on with what it holds: outcomes of what was
// handed out count again. One that the member is to have no more is not read any
// more.
func (m *member) assign(ctx context.Context, gen *kafka.Generation) error {
	shares, err := m.shares(ctx, gen)
	if err != nil {
		m.c.relearn(ctx)
		return err
	}
	sticky := m.c.options.sticky()
	now := map[place]*partition{}
	var gone, moving []*partition
	for _, old := range m.held() {
		from, mine := shares[old.at]
		switch {
		case mine && from.known && old.goesOn(from.progress, sticky && !m.lost):
			old.moving.Store(false)
			now[old.at] = old
		case !mine && sticky && !m.lost:
			if !old.moving.Swap(true) {
				old.until = time.Now().Add(m.c.options.drain())
				moving = append(moving, old)
			}
			now[old.at] = old
		default:
			gone = append(gone, old)
		}
	}
	halt(append(gone, moving...)...)
	for _, old := range gone {
		old.forget()
	}
	for at, from := range shares {
		if now[at] == nil {
			now[at] = newPartition(m, at, from.progress)
		}
		m.k.learn(m.sub.Group, at.topic)
	}
	m.mu.Lock()
	m.parts, m.of, m.lost = now, gen.ID, false
	m.mu.Unlock()
	return nil
}

// start is where the group is in a partition. When it is known the brokers had
// it; else it is where the group begins, which they know now.
type start struct {
	progress
	known bool
}

// shares asks how far the group is in the partitions that the member is to have.
// Where the group begins it commits that.
func (m *member) shares(ctx context.Context, gen *kafka.Generation) (_ map[place]start, err error) {
	m.k.noting.Lock()
	defer m.k.noting.Unlock()
	shares := map[place]start{}
	pin := map[string]map[int]int64{}
	defer func() {
		if err != nil {
			for topic, begins := range pin {
				m.k.keep(m.sub.Group, topic, begins)
			}
		}
	}()
	for topic, list := range gen.Assignments {
		if len(list) == 0 {
			continue
		}
		ids := make([]int, len(list))
		for i := range list {
			ids[i] = list[i].ID
		}
		at, err := m.offsets(ctx, topic, ids)
		if err != nil {
			return nil, err
		}
		for _, p := range at {
			if p.CommittedOffset >= 0 {
				shares[place{topic, p.Partition}] = start{progress{offset: p.CommittedOffset, note: p.Metadata}, true}
			}
		}
		begins, err := m.begins(ctx, topic, at)
		if err != nil {
			return nil, err
		}
		for id, offset := range begins {
			shares[place{topic, id}] = start{progress: progress{offset: offset}}
		}
		if len(begins) > 0 {
			pin[topic] = begins
		}
	}
	return shares, gen.CommitOffsets(pin)
}

// offsets asks for what the group committed last of partitions.
func (m *member) offsets(ctx context.Context, topic string, parts []int) ([]kafka.OffsetFetchPartition, error) {
	ctx, cancel := context.WithTimeout(ctx, m.c.options.ReadTimeout)
	defer cancel()
	res, err := m.c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: m.sub.Group, Topics: map[string][]int{topic: parts}})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, err
	}
	at := res.Topics[topic]
	for i := range at {
		if at[i].Error != nil {
			return nil, at[i].Error
		}
	}
	return at, nil
}

// begins is where the group begins on those partitions of which it has no
// offset: where Prepare found, or by the options.
func (m *member) begins(ctx context.Context, topic string, list []kafka.OffsetFetchPartition) (map[int]int64, error) {
	begins := map[int]int64{}
	var missing []int
	for _, a := range list {
		kept, ok := m.k.kept(m.sub.Group, topic, a.Partition)
		switch {
		case a.CommittedOffset >= 0:
		case ok:
			begins[a.Partition] = kept
		default:
			missing = append(missing, a.Partition)
		}
	}
	if len(missing) == 0 {
		return begins, nil
	}
	offsets, err := m.c.begin(ctx, topic, missing, m.k.known(m.sub.Group, topic))
	if err != nil {
		m.k.keep(m.sub.Group, topic, begins)
		return nil, err
	}
	maps.Copy(begins, offsets)
	return begins, nil
}

// watch commits now and then until the generation or the member ends, the
// topics have other partitions than they had, or all that is to move has been
// given up.
func (m *member) watch(ended context.Context, gen *kafka.Generation) {
	tick := time.NewTicker(m.c.options.CommitInterval)
	defer tick.Stop()
	look := time.NewTicker(2 * time.Second)
	defer look.Stop()
	late := time.NewTimer(m.c.options.drain())
	defer late.Stop()
	shape, err := m.shape(m.ctx)
	if err != nil {
		shape = len(m.held()) // one that differs is looked at again
	}
	for !m.moved(gen) {
		select {
		case <-ended.Done():
			return
		case <-m.ctx.Done():
			return
		case <-m.quiet:
			if m.thaw() || m.over() {
				return
			}
		case <-late.C: // for what has been moving since then
		case <-tick.C:
			_ = m.commit(gen, m.held()) // it is tried again
			m.note(gen)
		case <-m.commitNow:
			_ = m.commit(gen, m.held())
			m.note(gen)
		case <-look.C:
			now, err := m.shape(m.ctx)
			if isMissing(err) {
				m.fail(err)
				return
			}
			if err == nil && now != shape {
				return
			}
		}
	}
}

// shape is how many partitions the topics have.
func (m *member) shape(ctx context.Context) (all int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, t := range m.sub.Topics {
		n, err := m.c.known(ctx, t)
		if err != nil {
			return 0, err
		}
		if n == 0 { // deleted: have it made again where the brokers do that
			if n, err = m.c.ask(ctx, t); err != nil {
				return 0, err
			}
		}
		all += n
	}
	return all, nil
}

// drain waits until nothing is under way, and keeps the membership meanwhile.
func (m *member) drain(gen *kafka.Generation) {
	last := time.NewTimer(m.c.options.drain())
	defer last.Stop()
	beat := time.NewTicker(m.c.options.HeartbeatInterval)
	defer beat.Stop()
	for m.out.Load() > 0 {
		select {
		case <-m.quiet:
		case <-last.C:
			return
		case <-m.ctx.Done():
			return
		case <-beat.C:
			res, err := m.c.client.Heartbeat(m.ctx, &kafka.HeartbeatRequest{
				GroupID: gen.GroupID, GenerationID: gen.ID, MemberID: gen.MemberID,
			})
			if err == nil && is(res.Error, kafka.UnknownMemberId, kafka.IllegalGeneration) {
				return // others have the partitions
			}
		}
	}
	ring(m.quiet)
}
