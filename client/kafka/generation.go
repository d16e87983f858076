package kafka

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// generation reads the partitions that the member has in one generation of its
// group. At its end nothing is handed out any more, what is under way has a
// moment to be settled, and all that is done is committed, before the member
// asks for partitions again.
func (m *member) generation(ended context.Context, gen *kafka.Generation) {
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	if err := m.assign(ctx, gen); err != nil {
		if !again(err) || isMissing(err) {
			m.fail(classify(err))
		}
		_ = pause(ctx, 3) // and then the group is joined again
		return
	}
	var work sync.WaitGroup
	for _, p := range m.parts {
		work.Go(func() { m.fetch(ctx, p) })
		work.Go(func() { m.emit(ctx, p) })
	}
	m.watch(ctx, ended, gen)
	cancel()
	work.Wait()
	if m.ctx.Err() == nil {
		m.drain(gen)
	}
	m.commit(gen)
}

// assign makes the partitions of a generation. One that the member had before,
// and nobody committed since, goes on with what it holds: outcomes of what was
// handed out count again.
func (m *member) assign(ctx context.Context, gen *kafka.Generation) error {
	now := map[place]*partition{}
	pin := map[string]map[int]int64{}
	for topic, list := range gen.Assignments {
		begins, err := m.begins(ctx, topic, list)
		if err != nil {
			m.c.relearn(ctx)
			return err
		}
		if len(begins) > 0 {
			pin[topic] = begins
		}
		for _, a := range list {
			at := place{topic, a.ID}
			old := m.parts[at]
			offset := a.Offset
			if offset < 0 {
				offset, old = begins[a.ID], nil
			}
			if old == nil || old.committed != offset {
				old = newPartition(m, at, offset)
			}
			now[at] = old
		}
	}
	if len(pin) > 0 {
		if err := gen.CommitOffsets(pin); err != nil {
			for topic, begins := range pin {
				m.k.keep(m.sub.Group, topic, begins)
			}
			return err
		}
	}
	for at, p := range m.parts {
		if now[at] != p {
			p.forget()
		}
	}
	for at := range now {
		m.k.learn(m.sub.Group, at.topic)
	}
	m.parts = now
	return nil
}

// begins is where the group begins on those partitions of which it has no
// offset: where Prepare found, or by the options.
func (m *member) begins(ctx context.Context, topic string, list []kafka.PartitionAssignment) (map[int]int64, error) {
	begins := map[int]int64{}
	var missing []int
	for _, a := range list {
		kept, ok := m.k.kept(m.sub.Group, topic, a.ID)
		switch {
		case a.Offset >= 0:
		case ok:
			begins[a.ID] = kept
		default:
			missing = append(missing, a.ID)
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

// watch commits now and then until the generation or the member ends, or the
// topics have other partitions than they had.
func (m *member) watch(ctx, ended context.Context, gen *kafka.Generation) {
	tick := time.NewTicker(m.c.options.CommitInterval)
	defer tick.Stop()
	look := time.NewTicker(2 * time.Second)
	defer look.Stop()
	shape, err := m.shape(ctx)
	if err != nil {
		shape = len(m.parts) // one that differs is looked at again
	}
	for {
		select {
		case <-ended.Done():
			return
		case <-m.ctx.Done():
			return
		case <-m.quiet:
			if m.over() {
				return
			}
		case <-tick.C:
			m.commit(gen)
		case <-m.commitNow:
			m.commit(gen)
		case <-look.C:
			now, err := m.shape(ctx)
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

// commit commits what is done. Only the member's current generation can.
func (m *member) commit(gen *kafka.Generation) {
	offsets := map[string]map[int]int64{}
	for at, p := range m.parts {
		if offset, news := p.position(); news {
			if offsets[at.topic] == nil {
				offsets[at.topic] = map[int]int64{}
			}
			offsets[at.topic][at.partition] = offset
		}
	}
	if len(offsets) == 0 {
		return
	}
	if err := gen.CommitOffsets(offsets); err != nil {
		return // the generation is over, or soon will be; then it comes again
	}
	for topic, parts := range offsets {
		for id, offset := range parts {
			m.parts[place{topic, id}].commit(offset)
		}
	}
}

// drain waits until nothing is under way, and keeps the membership meanwhile.
func (m *member) drain(gen *kafka.Generation) {
	last := time.NewTimer(m.c.options.RebalanceDrain)
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
