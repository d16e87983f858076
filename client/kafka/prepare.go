package kafka

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/fault"
)

// reading is a topic that a group reads.
type reading struct{ group, topic string }

// begun is what a consumer keeps of one.
type begun struct {
	// had: the group had offsets of it. When a topic is deleted the brokers forget
	// them, and what is then written to the one that is made anew is for the group.
	had bool
	// from is where Prepare found that the group begins, by partition, as long as
	// the brokers do not know: they take it from nobody but a member when there are
	// members.
	from map[int]int64
}

// begun returns what is kept of a topic. It runs under mu.
func (k *Consumer) begun(group, topic string) *begun {
	b := k.topics[reading{group, topic}]
	if b == nil {
		b = &begun{from: map[int]int64{}}
		k.topics[reading{group, topic}] = b
	}
	return b
}

// known tells whether the group had offsets of the topic before.
func (k *Consumer) known(group, topic string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.begun(group, topic).had
}

func (k *Consumer) learn(group, topic string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun(group, topic).had = true
}

// keep notes where the group begins.
func (k *Consumer) keep(group, topic string, offsets map[int]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := k.begun(group, topic).from
	for p, offset := range offsets {
		if _, ok := from[p]; !ok {
			from[p] = offset
		}
	}
}

// kept takes out what was noted.
func (k *Consumer) kept(group, topic string, partition int) (int64, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := k.begun(group, topic).from
	offset, ok := from[partition]
	delete(from, partition)
	return offset, ok
}

// notes is what was noted of the topics of a group, by topic and partition.
func (k *Consumer) notes(group string) map[string]map[int]int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]map[int]int64{}
	for r, b := range k.topics {
		if r.group == group && len(b.from) > 0 {
			all[r.topic] = maps.Clone(b.from)
		}
	}
	return all
}

// unnote forgets what was noted, where the brokers know it now.
func (k *Consumer) unnote(group, topic string, from map[int]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.begun(group, topic)
	b.had = true
	for p := range from {
		delete(b.from, p)
	}
}

// nudge has a member of the group commit what was noted; false when there is
// none here.
func (k *Consumer) nudge(group string) (found bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.members {
		if m.sub.Group == group && m.ctx.Err() == nil {
			found = true
			ring(m.commitNow)
		}
	}
	return found
}

// note commits for others where the group begins on their topics, as Prepare
// found: the brokers take that from members only, as long as there are any. What
// fails is tried again.
func (m *member) note(gen *kafka.Generation) {
	group := m.sub.Group
	if len(m.k.notes(group)) == 0 {
		return
	}
	m.k.noting.Lock()
	defer m.k.noting.Unlock()
	for topic, from := range m.k.notes(group) {
		switch err := m.noteTopic(gen, topic, from); {
		case err == nil:
			m.k.unnote(group, topic, from)
		case isMissing(err):
			m.k.unkeep(group, topic) // there is nothing to begin on
		default:
			return
		}
	}
}

// noteTopic commits that for a topic, where the brokers do not know more.
func (m *member) noteTopic(gen *kafka.Generation, topic string, from map[int]int64) error {
	at, err := m.offsets(m.last, topic, slices.Collect(maps.Keys(from)))
	if err != nil {
		return err
	}
	var commits []kafka.OffsetCommit
	for _, p := range at {
		if p.CommittedOffset < 0 {
			commits = append(commits, kafka.OffsetCommit{Partition: p.Partition, Offset: from[p.Partition]})
		}
	}
	if len(commits) == 0 {
		return nil
	}
	return m.send(gen, map[string][]kafka.OffsetCommit{topic: commits})
}

// unkeep forgets what was noted of a topic.
func (k *Consumer) unkeep(group, topic string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.begun(group, topic).from)
}

// Prepare makes the offsets of a group, so that everything written from now on
// is for it: it commits where the group begins on partitions of which it has no
// offset. When the group has members they alone may: one of this consumer does,
// and is waited for. When all are in other processes the one that reads the topic
// will.
func (k *Consumer) Prepare(ctx context.Context, group string, topics []string) error {
	for _, t := range topics {
		if _, err := k.c.partitions(ctx, t); isMissing(err) {
			return fault.Wrap(err, "prepare group %s", group) // it was waited for
		}
	}
	for try := 0; ; try++ {
		err := k.pin(ctx, group, topics)
		members := is(err, kafka.UnknownMemberId, kafka.RebalanceInProgress, kafka.IllegalGeneration)
		if err == nil || members && (try == 20 || !k.nudge(group)) {
			return nil // where it begins is noted too, for brokers that do not know it when it joins
		}
		if !members && !again(err) || try == 20 {
			return fault.Wrap(classify(err), "prepare group %s of %s", group, strings.Join(topics, ", "))
		}
		if err := pause(ctx, try); err != nil {
			return fault.Wrap(classify(err), "prepare group %s", group)
		}
		if !members {
			k.c.relearn(ctx)
		}
	}
}

func (k *Consumer) pin(ctx context.Context, group string, topics []string) error {
	c := k.c
	ctx, cancel := context.WithTimeout(ctx, c.options.ReadTimeout)
	defer cancel()
	ask := map[string][]int{}
	for _, t := range topics {
		n, err := c.partitions(ctx, t)
		if err != nil {
			return err
		}
		for i := range n {
			ask[t] = append(ask[t], i)
		}
	}
	res, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: ask})
	if err == nil {
		err = res.Error
	}
	if err != nil && !is(err, kafka.GroupIdNotFound) {
		return err
	}
	begins := map[string]map[int]int64{}
	for t, missing := range ask {
		if err == nil {
			missing = nil
			for _, p := range res.Topics[t] {
				if p.Error != nil {
					return p.Error
				}
				if p.CommittedOffset < 0 {
					missing = append(missing, p.Partition)
				} else {
					k.learn(group, t)
				}
			}
		}
		if len(missing) == 0 {
			continue
		}
		offsets, err := c.begin(ctx, t, missing, k.known(group, t))
		if err != nil {
			return err
		}
		k.keep(group, t, offsets)
		begins[t] = offsets
	}
	if len(begins) == 0 {
		return nil
	}
	return c.set(ctx, group, begins)
}

// set commits the offsets of a group that has no members.
func (c *Cluster) set(ctx context.Context, group string, offsets map[string]map[int]int64) error {
	commits := map[string][]kafka.OffsetCommit{}
	for t, parts := range offsets {
		for p, offset := range parts {
			commits[t] = append(commits[t], kafka.OffsetCommit{Partition: p, Offset: offset})
		}
	}
	done, err := c.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: commits})
	if err != nil {
		return err
	}
	for _, parts := range done.Topics {
		for _, p := range parts {
			err = errors.Join(err, p.Error)
		}
	}
	return err
}

// begin returns where a group begins on partitions of which it has no offset.
// One that has read the topic before begins a new partition at its start, or it
// would miss what was written before it saw the partition.
func (c *Cluster) begin(ctx context.Context, topic string, parts []int, known bool) (map[int]int64, error) {
	oldest := known || c.options.InitialOffset == "oldest"
	req := &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{}, IsolationLevel: kafka.ReadCommitted}
	for _, p := range parts {
		at := kafka.LastOffsetOf(p)
		if oldest {
			at = kafka.FirstOffsetOf(p)
		}
		req.Topics[topic] = append(req.Topics[topic], at)
	}
	res, err := c.client.ListOffsets(ctx, req)
	if err != nil {
		return nil, err
	}
	offsets := map[int]int64{}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		offsets[p.Partition] = p.LastOffset
		if oldest {
			offsets[p.Partition] = p.FirstOffset
		}
	}
	return offsets, nil
}
