package main

import (
	"context"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxWaiting = 10_000 // messages in a queue
	maxOpen    = 100    // messages of a stream that are not answered
)

// msg is one message. Its id stays the same however often it is delivered.
type msg struct {
	id, contentType string
	data            []byte
	metadata        map[string]string
}

// queue holds messages that are not with a stream.
type queue struct {
	mu      sync.Mutex
	waiting []*msg
	made    time.Time // with count: ids that no process before gave out
	count   int
	more    chan struct{} // closed when a message has come
}

func newQueue() *queue { return &queue{made: time.Now(), more: make(chan struct{})} }

// put adds a new message.
func (q *queue) put(m msg) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxWaiting {
		return status.Errorf(codes.ResourceExhausted, "%d messages are waiting", maxWaiting)
	}
	q.count++
	m.id = strconv.FormatInt(q.made.UnixNano(), 36) + "-" + strconv.Itoa(q.count)
	q.add(&m)
	return nil
}

// back adds a message that was taken and not done.
func (q *queue) back(m *msg) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(m)
}

func (q *queue) add(m *msg) {
	q.waiting = append(q.waiting, m)
	close(q.more)
	q.more = make(chan struct{})
}

// take waits for a message.
func (q *queue) take(ctx context.Context) (*msg, error) {
	for {
		q.mu.Lock()
		if len(q.waiting) > 0 {
			m := q.waiting[0]
			q.waiting = q.waiting[1:]
			q.mu.Unlock()
			return m, nil
		}
		more := q.more
		q.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// stream is what the streams of a pub/sub and of an input have in common.
type stream struct {
	send func(*msg) error
	// answer waits for an answer: the message's id, and whether it failed.
	answer func() (id string, failed bool, err error)
}

// deliver sends what the queue holds until the stream ends. A message that was
// answered with an error, or not at all by then, goes back.
func deliver(ctx context.Context, q *queue, s stream) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	room := make(chan struct{}, maxOpen)
	var mu sync.Mutex
	open := map[string]*msg{}
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range open {
			q.back(m)
		}
		clear(open)
	}()
	go func() {
		defer stop() // the other side is gone, or wants no more
		for {
			id, failed, err := s.answer()
			if err != nil {
				return
			}
			mu.Lock()
			m := open[id]
			delete(open, id)
			mu.Unlock()
			if m == nil {
				continue // answered twice
			}
			<-room
			if failed {
				q.back(m)
			}
		}
	}()
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		m, err := q.take(ctx)
		if err != nil {
			return nil
		}
		mu.Lock()
		open[m.id] = m
		mu.Unlock()
		if err := s.send(m); err != nil {
			return err
		}
	}
}
