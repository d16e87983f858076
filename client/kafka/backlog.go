package kafka

import (
	"context"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Backlog counts what topics have from where the group has committed to their ends:
// its lag. What is done behind the oldest record that is not counts too, and so do
// the marks of transactions. A topic that is not there has none. The brokers do not
// tell the age of a record without sending it.
func (k *Consumer) Backlog(ctx context.Context, group string, topics []string) (cloudevents.Backlog, error) {
	var b cloudevents.Backlog
	for _, t := range topics {
		n, err := k.lag(ctx, group, t)
		if err != nil {
			return cloudevents.Backlog{}, fault.Wrap(classify(err), "count records of topic %s", t)
		}
		b.Messages += n
	}
	return b, nil
}

// lag is that of one topic. It asks for the beginnings of those partitions alone that
// the group is behind on: what is older than them is gone.
func (k *Consumer) lag(ctx context.Context, group, topic string) (n int64, err error) {
	c := k.c
	count, err := c.known(ctx, topic)
	if err != nil || count == 0 {
		return 0, err
	}
	parts := make([]int, count)
	for p := range parts {
		parts[p] = p
	}
	at, err := k.committed(ctx, group, topic, parts)
	if err != nil {
		return 0, err
	}
	ends, err := c.edges(ctx, topic, parts, kafka.LastOffsetOf)
	if err != nil {
		return 0, err
	}
	var behind []int
	for p, end := range ends {
		if at[p] < end {
			behind = append(behind, p)
		}
	}
	if len(behind) == 0 {
		return 0, nil
	}
	firsts, err := c.edges(ctx, topic, behind, kafka.FirstOffsetOf)
	if err != nil {
		return 0, err
	}
	for p, first := range firsts {
		n += max(0, ends[p]-max(at[p], first))
	}
	return n, nil
}

// committed is where a group goes on, by partition. Where it has not begun that is
// where it will; partitions of which it would take only what comes are left at the
// end of all numbers.
func (k *Consumer) committed(ctx context.Context, group, topic string, parts []int) (map[int]int64, error) {
	const end = 1<<63 - 1
	res, err := k.c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: parts}})
	if err == nil {
		err = res.Error
	}
	if err != nil && !is(err, kafka.GroupIdNotFound) {
		return nil, err
	}
	oldest := k.c.options.InitialOffset == "oldest" || k.known(group, topic)
	noted := k.notes(group)[topic]
	at := make(map[int]int64, len(parts))
	for _, p := range parts {
		from, ok := noted[p]
		switch {
		case ok:
			at[p] = from
		case !oldest:
			at[p] = end
		}
	}
	if err != nil {
		return at, nil
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		if p.CommittedOffset >= 0 {
			at[p.Partition] = p.CommittedOffset
		}
	}
	return at, nil
}

// edges are the first or the last offsets of partitions, the latter as a reader of
// committed transactions sees them.
func (c *Cluster) edges(ctx context.Context, topic string, parts []int, of func(int) kafka.OffsetRequest) (map[int]int64, error) {
	req := &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{}, IsolationLevel: kafka.ReadCommitted}
	for _, p := range parts {
		req.Topics[topic] = append(req.Topics[topic], of(p))
	}
	res, err := c.client.ListOffsets(ctx, req)
	if err != nil {
		return nil, err
	}
	edges := make(map[int]int64, len(parts))
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		edges[p.Partition] = max(p.FirstOffset, p.LastOffset) // the other one is -1
	}
	return edges, nil
}
