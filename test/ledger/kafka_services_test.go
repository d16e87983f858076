//go:build services

package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	varint "encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/test/fake"
	"github.com/penstock-io/penstock/test/services"
)

// kafkaBroker is three brokers.
func kafkaBroker() *broker {
	b := &broker{
		name: "kafka",
		resource: func(x *run) string {
			return componentYAML("pubsub.kafka", "brokers", x.addr, "authType", "none", "commitInterval", "100ms")
		},
		order: oneReplica,
		every: 200 * time.Millisecond,
	}
	b.watch = func(x *run) (lookFunc, func()) { return watchKafka(b.addr(), x.name, x.group()) }
	// A group that has members cannot be deleted, but its topic can, and the
	// group's offsets with it.
	b.remove = func(ctx context.Context, x *run) error {
		c, done := kafkaClient(b.addr())
		defer done()
		res, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{x.name}})
		if err != nil {
			return err
		}
		return res.Errors[x.name]
	}
	b.there = func(ctx context.Context, x *run) (bool, error) {
		c, done := kafkaClient(b.addr())
		defer done()
		n, err := partitionsOf(ctx, c, x.name)
		return n > 0, err
	}
	b.opens("kafka", func(addr string) string { return addr })
	d := &kafkaDoors{given: map[string]int{}}
	open := b.open
	b.open = func(t *testing.T) {
		open(t)
		d.open(t, b.server.(*started).Doors)
	}
	b.proxy = d.proxy
	return b
}

// kafkaDoors are the ways to the brokers through proxies. Each row has one, since
// the brokers send a client on to addresses that were fixed at their start.
type kafkaDoors struct {
	ways [][]*fake.Proxy // of each door: one to every broker

	mu    sync.Mutex
	given map[string]int // to rows, by name
}

func (d *kafkaDoors) open(t *testing.T, doors [][]services.Door) {
	t.Helper()
	for _, door := range doors {
		var way []*fake.Proxy
		for _, to := range door {
			p, err := fake.NewProxyAt(to.Advertised, to.Addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			way = append(way, p)
		}
		d.ways = append(d.ways, way)
	}
}

// proxy gives a row its door, and the same one when the row is played again.
func (d *kafkaDoors) proxy(t *testing.T, r *row) (network, string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.given[r.name]
	if !ok {
		n = len(d.given)
		d.given[r.name] = n
	}
	if n >= len(d.ways) {
		t.Fatalf("there are %d doors to the brokers, and more rows that want one", len(d.ways))
	}
	var addrs []string
	for _, p := range d.ways[n] {
		addrs = append(addrs, p.Addr())
	}
	return proxies(d.ways[n]), strings.Join(addrs, ",")
}

// proxies are several as one.
type proxies []*fake.Proxy

func (all proxies) Set(n fake.Network) {
	for _, p := range all {
		p.Set(n)
	}
}

func (all proxies) HalfOpen() {
	for _, p := range all {
		p.HalfOpen()
	}
}

func kafkaClient(addr string) (*kafka.Client, func()) {
	t := &kafka.Transport{}
	return &kafka.Client{Addr: kafka.TCP(strings.Split(addr, ",")...), Transport: t, Timeout: 5 * time.Second}, t.CloseIdleConnections
}

// partitionsOf is how many partitions a topic has, 0 when it is not there.
func partitionsOf(ctx context.Context, c *kafka.Client, topic string) (int, error) {
	res, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, err
	}
	for _, t := range res.Topics {
		if t.Name == topic && t.Error == nil {
			return len(t.Partitions), nil
		}
	}
	return 0, nil
}

// kafkaWatch reads a topic on its own, and how far its group is.
type kafkaWatch struct {
	c            *kafka.Client
	topic, group string
	ids          map[int][]string  // by partition and offset
	shown        map[string]bool   // all that were ever read
	less         map[int]time.Time // since when a partition shows only the beginning of them
}

func watchKafka(addr, topic, group string) (lookFunc, func()) {
	c, done := kafkaClient(addr)
	w := &kafkaWatch{c: c, topic: topic, group: group, ids: map[int][]string{}, shown: map[string]bool{}, less: map[int]time.Time{}}
	return w.look, done
}

// look asks how far the group is first: what is acknowledged while the records
// are read counts as held, which does no harm.
func (w *kafkaWatch) look(ctx context.Context) (s seen, err error) {
	n, err := partitionsOf(ctx, w.c, w.topic)
	if err != nil || n == 0 {
		return s, errors.Join(err, errors.New("no topic"))
	}
	var parts []int
	for p := range n {
		parts = append(parts, p)
	}
	res, err := w.c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: w.group, Topics: map[string][]int{w.topic: parts}})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return s, err
	}
	s.held, s.shown = map[string]bool{}, w.shown
	for _, at := range res.Topics[w.topic] {
		if at.Error != nil {
			return s, at.Error
		}
		if err := w.readAll(ctx, at.Partition); err != nil {
			return s, err
		}
		committed, done := at.CommittedOffset, doneBehind(at.Metadata)
		if committed > int64(len(w.ids[at.Partition])) {
			// It is of the topic that was deleted: a group that begins there begins at
			// the beginning.
			committed, done = 0, nil
		}
		for offset, id := range w.ids[at.Partition] {
			if behind := int64(offset) - committed; behind >= 0 && !done[behind] && id != "" {
				s.held[id] = true
			}
		}
	}
	return s, nil
}

// doneBehind reads what a commit says beside its offset: which records behind it
// are acknowledged too. It is written down here once more, since what Penstock
// thinks of its notes is not to be asked.
func doneBehind(note string) map[int64]bool {
	done := map[int64]bool{}
	code, ok := strings.CutPrefix(note, "penstock:1:")
	if !ok {
		return done
	}
	raw, err := base64.RawStdEncoding.DecodeString(code)
	if err != nil {
		panic(err)
	}
	at := int64(0)
	for r := bytes.NewReader(raw); ; {
		open, err := varint.ReadUvarint(r)
		if err != nil {
			return done
		}
		length, err := varint.ReadUvarint(r)
		if err != nil {
			panic(err)
		}
		at += int64(open)
		for range length {
			done[at] = true
			at++
		}
	}
}

// readAll reads a partition. One that shows the beginning of what it showed before
// is not looked at for a while: its records are there, and not acknowledged.
func (w *kafkaWatch) readAll(ctx context.Context, partition int) error {
	before := w.ids[partition]
	if err := w.read(ctx, partition); err != nil {
		return err
	}
	now := w.ids[partition]
	if len(now) >= len(before) || !slices.Equal(now, before[:len(now)]) {
		delete(w.less, partition)
		return nil
	}
	if w.less[partition].IsZero() {
		w.less[partition] = time.Now()
	}
	if time.Since(w.less[partition]) > lagging {
		delete(w.less, partition)
		return nil
	}
	w.ids[partition] = before
	return fmt.Errorf("partition %d shows %d of %d records", partition, len(now), len(before))
}

// read reads what is new in a partition, and the last that it read before once
// more: a topic that was made anew has another there, and is read from its
// beginning.
func (w *kafkaWatch) read(ctx context.Context, partition int) error {
	for {
		next := int64(len(w.ids[partition]))
		res, err := w.c.Fetch(ctx, &kafka.FetchRequest{
			Topic: w.topic, Partition: partition, Offset: max(next-1, 0), MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Millisecond,
		})
		if err == nil {
			err = res.Error
		}
		if errors.Is(err, kafka.OffsetOutOfRange) {
			w.ids[partition] = nil
			continue
		}
		if err != nil {
			return err
		}
		anew := false
		for {
			r, err := res.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			body, err := io.ReadAll(r.Value)
			if err != nil {
				return err
			}
			id, _ := idIn(body)
			w.shown[id] = true
			if r.Offset >= next {
				w.ids[partition] = append(w.ids[partition], id)
			} else if r.Offset == next-1 && id != w.ids[partition][next-1] {
				anew = true
				break
			}
		}
		if anew {
			w.ids[partition] = nil
			continue
		}
		if int64(len(w.ids[partition])) == next {
			return nil
		}
	}
}
