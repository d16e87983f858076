package kafka

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"regexp"
	"sync"
	"sync/atomic"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"

	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/fault"
)

const (
	batchBytes   = 1_000_000 // below the 1 MiB that a broker takes by default
	batchRecords = 10_000
	recordBytes  = 24 // what a record costs beside its contents, at most about
)

// AnyPartition leaves the choice of the partition to the key, or to the
// producer when there is none.
const AnyPartition = -1

// Message is one record to write. A nil Key is none.
type Message struct {
	Key       []byte
	Value     []byte
	Headers   []kafka.Header
	Partition int

	to int // the partition chosen
}

func (m *Message) size() int {
	n := recordBytes + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value) + 6
	}
	return n
}

// Producer writes to any topic. While one request to a partition is under way
// the next one fills, so records keep their order inside a partition and nobody
// waits for a clock. It keeps a few hundred bytes for each partition it ever
// wrote to. All methods may be used by many goroutines.
type Producer struct {
	c       *Cluster
	ctx     context.Context
	exclude *regexp.Regexp
	turn    atomic.Uint32

	mu      sync.Mutex
	writers map[place]*batch.Writer[*Message]
	closed  bool
}

// place is one partition of a topic.
type place struct {
	topic     string
	partition int
}

// Producer makes a producer. Requests get the values of ctx, not its end.
func (c *Cluster) Producer(ctx context.Context) *Producer {
	p := &Producer{c: c, ctx: ctx, writers: map[place]*batch.Writer[*Message]{}}
	if c.options.ExcludeHeaders != "" {
		p.exclude = regexp.MustCompile(c.options.ExcludeHeaders) // checked with the options
	}
	return p
}

// Headers makes headers of request metadata.
func (p *Producer) Headers(metadata map[string]string) []kafka.Header {
	if len(metadata) == 0 {
		return nil
	}
	headers := make([]kafka.Header, 0, len(metadata))
	for k, v := range metadata {
		if p.exclude == nil || !p.exclude.MatchString(k) {
			headers = append(headers, kafka.Header{Key: k, Value: []byte(v)})
		}
	}
	return headers
}

// Publish writes the messages and waits for the confirmation of each: nil when
// all are written, else one error per message. Those of one call without a key
// go to one partition, each call to the next, and are one request as long as
// they fit. When ctx ends first, what is under way has an unknown end. Kinds:
// Invalid for what is too large and partitions that are not there, Denied,
// Unavailable and Timeout.
func (p *Producer) Publish(ctx context.Context, topic string, ms []Message) []error {
	if len(ms) == 0 {
		return nil
	}
	if p.over() {
		return batch.All(len(ms), errClosed)
	}
	n, err := p.c.partitions(ctx, topic)
	if err != nil {
		return batch.All(len(ms), err)
	}
	turn := -1
	alike := true
	for i := range ms {
		m := &ms[i]
		switch {
		case m.Partition >= n:
			return batch.All(len(ms), fault.New(fault.Invalid, "choose partition: topic %s has no partition %d", topic, m.Partition))
		case m.Partition >= 0:
			m.to = m.Partition
		case m.Key != nil:
			m.to = Partition(m.Key, n)
		default:
			if turn < 0 {
				turn = int(p.turn.Add(1)) % n
			}
			m.to = turn
		}
		alike = alike && m.to == ms[0].to
	}
	if alike {
		all := make([]*Message, len(ms))
		for i := range ms {
			all[i] = &ms[i]
		}
		return p.do(ctx, place{topic, ms[0].to}, all)
	}
	return p.spread(ctx, topic, ms, n)
}

// spread writes to several partitions at once.
func (p *Producer) spread(ctx context.Context, topic string, ms []Message, n int) []error {
	parts := make([][]*Message, n)
	at := make([][]int, n)
	for i := range ms {
		to := ms[i].to
		parts[to] = append(parts[to], &ms[i])
		at[to] = append(at[to], i)
	}
	results := make([][]error, n)
	var group sync.WaitGroup
	for to, part := range parts {
		if len(part) > 0 {
			group.Go(func() { results[to] = p.do(ctx, place{topic, to}, part) })
		}
	}
	group.Wait()
	var errs []error
	for to, result := range results {
		for i, err := range result {
			if err == nil {
				continue
			}
			if errs == nil {
				errs = make([]error, len(ms))
			}
			errs[at[to][i]] = err
		}
	}
	return errs
}

func (p *Producer) do(ctx context.Context, to place, ms []*Message) []error {
	w := p.writer(to)
	if w == nil {
		return batch.All(len(ms), errClosed)
	}
	return w.Do(ctx, ms...)
}

var errClosed = fault.New(fault.Unavailable, "the component is closed")

func (p *Producer) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *Producer) writer(to place) *batch.Writer[*Message] {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	w := p.writers[to]
	if w == nil {
		most := batchBytes
		if p.c.options.MaxMessageBytes > 0 {
			most = p.c.options.MaxMessageBytes
		}
		w = batch.NewWriter(p.ctx, batch.Options[*Message]{
			Most: batchRecords, Bytes: most, Size: (*Message).size,
			Write: func(ctx context.Context, ms []*Message) []error { return p.write(ctx, to, ms) },
		})
		p.writers[to] = w
	}
	return w
}

// write sends one batch until it is confirmed or the tries are used up. One
// that the broker finds too large goes in halves.
func (p *Producer) write(ctx context.Context, to place, ms []*Message) []error {
	if most := p.c.options.MaxMessageBytes; most > 0 && len(ms) == 1 && ms[0].size()-recordBytes > most {
		return batch.All(1, fault.New(fault.Invalid, "write to topic %s: the message is larger than maxMessageBytes (%d)", to.topic, most))
	}
	for try := 0; ; try++ {
		err := p.produce(ctx, to, ms)
		if err == nil {
			return nil
		}
		if len(ms) > 1 && is(err, kafka.MessageSizeTooLarge, kafka.RecordListTooLarge) {
			half := len(ms) / 2
			first, second := p.write(ctx, to, ms[:half]), p.write(ctx, to, ms[half:])
			if first == nil && second == nil {
				return nil
			}
			errs := make([]error, len(ms))
			copy(errs, first)
			copy(errs[half:], second)
			return errs
		}
		if !again(err) || try >= p.c.options.RetryMax || pause(ctx, try) != nil {
			return batch.All(len(ms), fault.Wrap(classify(err), "write to topic %s partition %d", to.topic, to.partition))
		}
		p.c.relearn(ctx)
	}
}

// produce is one request. The broker is told to wait nearly as long as we do:
// when it gives up earlier, the records are there and yet would be sent again.
func (p *Producer) produce(ctx context.Context, to place, ms []*Message) error {
	o := &p.c.options
	ctx, cancel := context.WithTimeout(ctx, o.WriteTimeout)
	defer cancel()
	acks := o.acks()
	res, err := p.c.transport.RoundTrip(ctx, p.c.addr, &produce.Request{
		Acks: int16(acks), Timeout: int32((o.WriteTimeout * 9 / 10).Milliseconds()),
		Topics: []produce.RequestTopic{{Topic: to.topic, Partitions: []produce.RequestPartition{{
			Partition: int32(to.partition),
			RecordSet: protocol.RecordSet{Attributes: protocol.Attributes(o.compression()), Records: &records{ms: ms}},
		}}}},
	})
	if err != nil || acks == kafka.RequireNone {
		return err
	}
	r := res.(*produce.Response)
	if len(r.Topics) == 0 || len(r.Topics[0].Partitions) == 0 {
		return protocol.ErrNoPartition
	}
	if code := r.Topics[0].Partitions[0].ErrorCode; code != 0 {
		return kafka.Error(code)
	}
	return nil
}

// Close writes what is queued, until ctx ends.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	writers := p.writers
	p.writers = nil
	p.mu.Unlock()
	var errs []error
	for _, w := range writers {
		errs = append(errs, w.Close(ctx))
	}
	return errors.Join(errs...)
}

// Partition is the partition of a key among n: that of sarama's hash partitioner
// and so of Dapr.
func Partition(key []byte, n int) int {
	h := fnv.New32a()
	_, _ = h.Write(key) // never fails
	to := int32(h.Sum32()) % int32(n)
	if to < 0 {
		to = -to
	}
	return int(to)
}

// records reads messages as records, without an allocation for each.
type records struct {
	ms         []*Message
	at         int
	record     kafka.Record
	key, value content
}

// ReadRecord implements kafka.RecordReader.
func (r *records) ReadRecord() (*kafka.Record, error) {
	if r.at == len(r.ms) {
		return nil, io.EOF
	}
	m := r.ms[r.at]
	r.at++
	r.record = kafka.Record{Headers: m.Headers}
	if m.Key != nil {
		r.key = content{m.Key}
		r.record.Key = &r.key
	}
	if m.Value != nil {
		r.value = content{m.Value}
		r.record.Value = &r.value
	}
	return &r.record, nil
}

// content is bytes as the client library wants them.
type content struct{ left []byte }

// Len implements kafka.Bytes.
func (c *content) Len() int { return len(c.left) }

// Close implements kafka.Bytes.
func (c *content) Close() error { return nil }

// Read implements kafka.Bytes.
func (c *content) Read(b []byte) (int, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.left)
	c.left = c.left[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (c *content) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(c.left)
	c.left = c.left[n:]
	return int64(n), err
}
