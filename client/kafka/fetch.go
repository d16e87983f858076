package kafka

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// Record is one record as it was read. Nobody changes it.
type Record struct {
	Topic     string
	Partition int
	Offset    int64
	Time      time.Time
	Key       []byte // nil: none
	Value     []byte
	Headers   []kafka.Header
}

func (r *Record) size() int {
	n := recordBytes + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// fetched is the answer to one fetch: records and the offset to go on with.
type fetched struct {
	items []*item
	free  []item // made ahead, some at a time
	bytes int64
	next  int64
	first int64 // the oldest offset that the broker has
}

// fetch asks for what is at offset and behind it. Records of transactions that
// were aborted are left out, and those that are still open are not there yet.
func (c *Cluster) fetch(ctx context.Context, topic string, partition int, offset int64) (*fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.FetchWait+c.options.ReadTimeout)
	defer cancel()
	most := int32(c.options.FetchMax)
	res, err := c.transport.RoundTrip(ctx, c.addr, &fetch.Request{
		ReplicaID: -1, MaxWaitTime: int32(c.options.FetchWait.Milliseconds()), MinBytes: int32(c.options.FetchMin), MaxBytes: most,
		IsolationLevel: int8(kafka.ReadCommitted), SessionID: -1, SessionEpoch: -1,
		Topics: []fetch.RequestTopic{{Topic: topic, Partitions: []fetch.RequestPartition{{
			Partition: int32(partition), CurrentLeaderEpoch: -1, FetchOffset: offset, LogStartOffset: -1, PartitionMaxBytes: most,
		}}}},
	})
	if err != nil {
		return nil, err
	}
	r := res.(*fetch.Response)
	if r.ErrorCode != 0 {
		return nil, kafka.Error(r.ErrorCode)
	}
	if len(r.Topics) == 0 || len(r.Topics[0].Partitions) == 0 {
		return nil, protocol.ErrNoPartition
	}
	part := &r.Topics[0].Partitions[0]
	if part.ErrorCode != 0 {
		return &fetched{first: part.LogStartOffset}, kafka.Error(part.ErrorCode)
	}
	f := &fetched{next: offset, first: part.LogStartOffset}
	return f, f.read(part, topic, partition)
}

// read takes the records out of an answer.
func (f *fetched) read(part *fetch.ResponsePartition, topic string, partition int) error {
	stream, ok := part.RecordSet.Records.(*protocol.RecordStream)
	if !ok {
		return nil
	}
	offset, seen := f.next, false
	aborted := aborts{left: part.AbortedTransactions}
	copier := slab{}
	for _, batch := range stream.Records {
		seen = true
		skip := aborted.skips(batch)
		for {
			r, err := batch.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if r.Offset >= offset && !skip {
				key, value := copier.take(r.Key), copier.take(r.Value)
				it := f.item()
				it.Record = Record{
					Topic: topic, Partition: partition, Offset: r.Offset, Time: r.Time, Key: key, Value: value, Headers: r.Headers,
				}
				it.bytes = it.size()
				f.bytes += int64(it.bytes)
			} else {
				closeBytes(r)
			}
			f.next = max(f.next, r.Offset+1)
		}
	}
	// Whole batches without a record of use: compaction took them. How far they
	// reach is not told, so the next look is one further.
	if seen && f.next == offset {
		f.next++
	}
	return nil
}

// itemsAhead is how many items are one allocation. They are freed together.
const itemsAhead = 32

func (f *fetched) item() *item {
	if len(f.free) == 0 {
		f.free = make([]item, itemsAhead)
	}
	it := &f.free[0]
	f.free = f.free[1:]
	f.items = append(f.items, it)
	return it
}

func closeBytes(r *protocol.Record) {
	if r.Key != nil {
		_ = r.Key.Close() // memory
	}
	if r.Value != nil {
		_ = r.Value.Close() // memory
	}
}

// aborts follows which transactions were aborted while batches are read.
type aborts struct {
	left []fetch.ResponseTransaction
	live map[int64]bool
}

// skips tells whether the records of a batch do not count.
func (a *aborts) skips(r protocol.RecordReader) bool {
	switch b := r.(type) {
	case *protocol.ControlBatch:
		a.begin(b.BaseOffset)
		delete(a.live, b.ProducerID) // commit or abort: the transaction is over
		return true
	case *protocol.RecordBatch:
		a.begin(b.BaseOffset)
		return b.Attributes.Transactional() && a.live[b.ProducerID]
	}
	return false
}

// begin notes the transactions that had begun at an offset.
func (a *aborts) begin(offset int64) {
	left := a.left[:0]
	for _, t := range a.left {
		if t.FirstOffset > offset {
			left = append(left, t)
			continue
		}
		if a.live == nil {
			a.live = map[int64]bool{}
		}
		a.live[t.ProducerID] = true
	}
	a.left = left
}

// slab copies bytes out of the library's buffers, small ones side by side.
type slab struct{ free []byte }

const slabBytes = 32 << 10

func (s *slab) take(b kafka.Bytes) []byte {
	if b == nil {
		return nil
	}
	n := b.Len()
	var to []byte
	if n > slabBytes/4 {
		to = make([]byte, n)
	} else {
		if n > len(s.free) {
			s.free = make([]byte, slabBytes)
		}
		to, s.free = s.free[:n:n], s.free[n:]
	}
	_, _ = io.ReadFull(b, to) // it is in memory
	_ = b.Close()
	return to
}
