package kafka

import (
	"context"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/fault"
)

// read begins to read a partition, and to hand out what it has, until halt.
func (m *member) read(p *partition) {
	if p.stop != nil {
		return
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(m.ctx)
	p.work.Go(func() { m.fetch(ctx, p) })
	p.work.Go(func() { m.emit(ctx, p) })
}

// halt stops reading partitions, and waits until nothing of them is handed out
// any more. What is under way stays so.
func halt(parts ...*partition) {
	for _, p := range parts {
		if p.stop != nil {
			p.stop()
		}
	}
	for _, p := range parts {
		if p.stop != nil {
			p.work.Wait()
			p.stop = nil
		}
	}
}

// fetch reads a partition until ctx ends.
func (m *member) fetch(ctx context.Context, p *partition) {
	for try := 0; ctx.Err() == nil; {
		if p.full() {
			select {
			case <-p.room:
			case <-ctx.Done():
			}
			continue
		}
		f, err := m.c.fetch(ctx, p.at.topic, p.at.partition, p.next)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			p.add(f)
			try = 0
			continue
		case is(err, kafka.OffsetOutOfRange):
			err = m.reset(ctx, p)
		case isMissing(err) && m.deleted(ctx, p):
			return
		}
		if err == nil {
			continue
		}
		if !again(err) {
			m.fail(fault.Wrap(classify(err), "read topic %s partition %d", p.at.topic, p.at.partition))
			return
		}
		if pause(ctx, try) == nil {
			m.c.relearn(ctx)
		}
		try++
	}
}

// deleted tells whether the topic of a partition is not the one that it was: the
// brokers forget the offsets of a topic with it, and the group always has some.
// One that was made anew may be past our offset already, so the membership ends
// here, and the next one begins with the offsets that there are then.
func (m *member) deleted(ctx context.Context, p *partition) bool {
	ctx, cancel := context.WithTimeout(ctx, m.c.options.ReadTimeout)
	defer cancel()
	topic, id := p.at.topic, p.at.partition
	res, err := m.c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: m.sub.Group, Topics: map[string][]int{topic: {id}}})
	if err != nil || res.Error != nil {
		return false
	}
	for _, at := range res.Topics[topic] {
		if at.Partition != id || at.Error != nil && !isMissing(at.Error) || at.CommittedOffset >= 0 {
			return false
		}
	}
	for _, old := range m.held() {
		if old.at.topic == topic {
			old.forget() // what is done of it must not be committed to the new one
		}
	}
	m.k.unkeep(m.sub.Group, topic)
	m.fail(fault.Wrap(missing(topic), "read topic %s", topic))
	return true
}

// reset is for an offset that the broker does not have: records were deleted
// before they were read, or the topic is a new one.
func (m *member) reset(ctx context.Context, p *partition) error {
	o := m.c.options
	o.InitialOffset = o.OutOfRange
	c := *m.c
	c.options = o
	offsets, err := c.begin(ctx, p.at.topic, []int{p.at.partition}, false)
	if err != nil {
		return err
	}
	to := offsets[p.at.partition]
	m.c.log.Error("the broker does not have the group's offset any more: messages may be lost",
		"group", m.sub.Group, "topic", p.at.topic, "partition", p.at.partition, "offset", p.next, "continued", to, "policy", o.OutOfRange)
	if o.OutOfRange == "stop" {
		return fault.New(fault.Invalid, "offset %d is out of range; see onOffsetOutOfRange", p.next)
	}
	p.restart(to)
	return nil
}

// restart goes on at another offset; what is under way means nothing there.
func (p *partition) restart(offset int64) {
	p.forget()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone, p.keys, p.fresh, p.bytes, p.skip = false, map[string][]*item{}, 0, 0, nil
	p.next, p.committed = offset, progress{offset: min(offset, p.committed.offset) - 1}
}

// emit hands out what a partition has, to whichever subscription the member
// has, until ctx ends.
func (m *member) emit(ctx context.Context, p *partition) {
	for ctx.Err() == nil {
		a, changed := m.attachment()
		if a == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		both, cancel := context.WithCancel(a.ctx)
		stop := context.AfterFunc(ctx, cancel)
		err := p.serve(both, a)
		stop()
		cancel()
		a.work.Done()
		if err != nil {
			m.fail(fault.Wrap(err, "hand over message"))
			return
		}
		if a.ctx.Err() != nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}
