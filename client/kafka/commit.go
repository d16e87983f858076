package kafka

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
)

// commit commits what is done of partitions. Only the member's current generation
// can.
func (m *member) commit(gen *kafka.Generation, parts []*partition) error {
	commits := map[string][]kafka.OffsetCommit{}
	now := map[*partition]progress{}
	for _, p := range parts {
		at, news := p.progress()
		if !news || p.moving.Load() && !m.ours(p, at) {
			continue
		}
		if m.plain {
			at.note = ""
		}
		now[p] = at
		commits[p.at.topic] = append(commits[p.at.topic], kafka.OffsetCommit{Partition: p.at.partition, Offset: at.offset, Metadata: at.note})
	}
	if len(now) == 0 {
		return nil
	}
	err := m.send(gen, commits)
	if is(err, kafka.OffsetMetadataTooLarge) && !m.plain {
		m.plain = true
		m.c.log.Warn("the brokers take no notes with offsets: more can come again after a stop; see offset.metadata.max.bytes", "group", m.sub.Group)
		return m.commit(gen, parts)
	}
	if err != nil {
		return err // the generation is over, or soon will be; then it comes again
	}
	for p, at := range now {
		p.commit(at)
	}
	return nil
}

func (m *member) send(gen *kafka.Generation, commits map[string][]kafka.OffsetCommit) error {
	ctx, cancel := context.WithTimeout(m.last, leaveTime)
	defer cancel()
	res, err := m.c.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: gen.GroupID, GenerationID: int(gen.ID), MemberID: gen.MemberID, Topics: commits,
	})
	if err != nil {
		return err
	}
	return refused(res)
}

// ours tells whether nobody has gone on with a partition that is to move: a leader
// that is none of ours gives it to others at once.
func (m *member) ours(p *partition, now progress) bool {
	at, err := m.offsets(m.last, p.at.topic, []int{p.at.partition})
	return err != nil || len(at) == 1 && at[0].CommittedOffset >= 0 && at[0].CommittedOffset <= now.offset
}

// refused is the first error in the answer to a commit.
func refused(res *kafka.OffsetCommitResponse) error {
	for _, parts := range res.Topics {
		for _, p := range parts {
			if p.Error != nil {
				return p.Error
			}
		}
	}
	return nil
}

// moved gives up those partitions that are to go to another member and of which
// nothing is under way any more, or which had their time. It tells whether the
// group is to be joined again, which shares them out.
func (m *member) moved(gen *kafka.Generation) bool {
	var ready []*partition
	left := 0
	for _, p := range m.held() {
		late := time.Now().After(p.until)
		switch {
		case !p.moving.Load():
		case p.out.Load() == 0 || late:
			if m.commit(gen, []*partition{p}) != nil && !late {
				left++ // it is tried again
				continue
			}
			ready = append(ready, p)
		default:
			left++
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range ready {
		p.forget()
		delete(m.parts, p.at)
	}
	if left > 0 {
		return false
	}
	for at := range m.said {
		if m.parts[at] == nil { // the leader waits for that
			m.said = nil
			return true
		}
	}
	return false
}
