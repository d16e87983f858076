package kafka

import (
	"context"
	"errors"
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

// unkeep forgets what was noted of a topic.
func (k *Consumer) unkeep(group, topic string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.begun(group, topic).from)
}

// Prepare makes the offsets of a group, so that everything written from now on
// is for it: it commits where the group begins on partitions of which it has no
// offset. When the group has members they alone may, and those of this consumer
// will.
func (k *Consumer) Prepare(ctx context.Context, group string, topics []string) error {
	for _, t := range topics {
		if _, err := k.c.partitions(ctx, t); isMissing(err) {
			return fault.Wrap(err, "prepare group %s", group) // it was waited for
		}
	}
	for try := 0; ; try++ {
		err := k.pin(ctx, group, topics)
		if err == nil || is(err, kafka.UnknownMemberId, kafka.RebalanceInProgress, kafka.IllegalGeneration) {
			return nil // where it begins is noted too, for brokers that do not know it when it joins
		}
		if !again(err) || try == 20 {
			return fault.Wrap(classify(err), "prepare group %s of %s", group, strings.Join(topics, ", "))
		}
		if err := pause(ctx, try); err != nil {
			return fault.Wrap(classify(err), "prepare group %s", group)
		}
		k.c.relearn(ctx)
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
