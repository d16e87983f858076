package nats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/fault"
)

// binding is one stream's durable consumer, as it was when it was bound.
type binding struct {
	consumer jetstream.Consumer
	// place remembers what is under way of the consumer across bindings.
	place *place
	// born tells the stream's incarnation: an acknowledgement of an older one
	// could hit another message.
	born    time.Time
	ackWait time.Duration
}

const purpose = "made by penstock for group "

// bind finds or makes the durable consumer that the members of a group share.
func (r *Consumer) bind(ctx context.Context, stream, subject, group string) (*binding, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	s, err := r.conn.js.Stream(ctx, stream)
	if err != nil {
		return nil, fault.Wrap(Classify(err), "find stream %s", stream)
	}
	name, old, err := r.find(ctx, s, subject, group)
	if err != nil {
		return nil, fault.Wrap(Classify(err), "find consumer of stream %s", stream)
	}
	born := s.CachedInfo().Created
	at := r.held.place(stream+"\x00"+name, born)
	conf := r.config(name, subject, group)
	switch {
	case old == nil:
		if from := at.resume(); from > 0 { // it was deleted while we read
			conf.DeliverPolicy, conf.OptStartSeq, conf.OptStartTime = jetstream.DeliverByStartSequencePolicy, from, nil
		}
		old, err = r.create(ctx, s, conf)
	case r.o.AckWait > 0 || r.o.MaxAckPending > 0:
		old, err = r.adjust(ctx, s, old, conf)
	}
	if err != nil {
		return nil, fault.Wrap(Classify(err), "make consumer %s of stream %s", name, stream)
	}
	wait := old.CachedInfo().Config.AckWait
	for _, d := range old.CachedInfo().Config.BackOff {
		wait = min(wait, d)
	}
	r.held.heartbeat(wait)
	return &binding{consumer: old, place: at, born: born, ackWait: wait}, nil
}

// create makes a consumer, or finds that of another member who was faster. One
// that goes on where the last one was must be of the same stream: a new one counts
// from 1 again.
func (r *Consumer) create(ctx context.Context, s jetstream.Stream, conf jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	made, err := s.CreateConsumer(ctx, conf)
	if errors.Is(err, jetstream.ErrConsumerExists) {
		return s.Consumer(ctx, conf.Durable)
	}
	if err != nil || conf.OptStartSeq == 0 || conf.OptStartSeq == r.o.StartSequence {
		return made, err
	}
	stream := s.CachedInfo().Config.Name
	now, err := r.conn.js.Stream(ctx, stream)
	if err == nil && now.CachedInfo().Created.Equal(s.CachedInfo().Created) {
		return made, nil
	}
	_ = r.conn.js.DeleteConsumer(ctx, stream, conf.Durable) // it has gone with its stream, or goes now
	return nil, fault.New(fault.Unavailable, "the stream was deleted meanwhile")
}

// find returns the consumer that is there already, and the name for one that is
// not.
func (r *Consumer) find(ctx context.Context, s jetstream.Stream, subject, group string) (string, jetstream.Consumer, error) {
	names := []string{Name(group, subject)}
	if r.o.Name != "" {
		names = []string{Name(r.o.Name), Name(r.o.Name, group, subject)}
	}
	for i, name := range names {
		old, err := s.Consumer(ctx, name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConsumerDoesNotExist) {
			return name, nil, nil
		}
		if errors.Is(err, jetstream.ErrNotPullConsumer) {
			if i < len(names)-1 {
				continue
			}
			return "", nil, err
		}
		if err != nil {
			return "", nil, err
		}
		c := old.CachedInfo().Config
		ours := c.Description == "" || c.Description == purpose+group
		if i == len(names)-1 || c.FilterSubject == subject && ours {
			return name, old, nil
		}
	}
	return "", nil, fault.New(fault.Internal, "no name is left")
}

func (r *Consumer) config(name, subject, group string) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable: name, Description: purpose + group, FilterSubject: subject,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: r.o.AckWait, MaxAckPending: r.o.MaxAckPending,
		DeliverPolicy: r.o.Deliver, MaxDeliver: -1, Replicas: r.o.Replicas, MemoryStorage: r.o.Memory,
	}
	if c.AckWait == 0 {
		c.AckWait = defaultAckWait
	}
	if c.MaxAckPending == 0 {
		c.MaxAckPending = defaultAckPending
	}
	switch r.o.Deliver {
	case jetstream.DeliverByStartSequencePolicy:
		c.OptStartSeq = r.o.StartSequence
	case jetstream.DeliverByStartTimePolicy:
		c.OptStartTime = &r.o.StartTime
	}
	return c
}

// adjust gives an existing consumer the limits that were asked for. What it reads
// and where it stands stay.
func (r *Consumer) adjust(ctx context.Context, s jetstream.Stream, old jetstream.Consumer, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	c := old.CachedInfo().Config
	wait, pending := c.AckWait, c.MaxAckPending
	if r.o.AckWait > 0 {
		wait = want.AckWait
	}
	if r.o.MaxAckPending > 0 {
		pending = want.MaxAckPending
	}
	if wait == c.AckWait && pending == c.MaxAckPending {
		return old, nil
	}
	c.AckWait, c.MaxAckPending = wait, pending
	return s.UpdateConsumer(ctx, c)
}
