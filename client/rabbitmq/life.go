package rabbitmq

import (
	"context"
	"crypto/rand"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/fault"
)

const (
	// answerTimeout is how long the server may take to say that a consumer or a
	// channel has ended; then the connection counts as dead.
	answerTimeout = 10 * time.Second
	// lingerTime is how long a queue that goes with its last consumer is kept
	// for the next Read.
	lingerTime = time.Minute
)

// end stops consuming: what nobody has taken yet goes back, what was handed out
// keeps the channel open until it is settled.
func (k *consumer) end() {
	if !k.ch.IsClosed() {
		if k.feed.Linger {
			k.reader.hold(k.session, k.feed.Queue)
		}
		k.within(func() { _ = k.ch.Cancel(k.tag, false) }) // else the channel is gone
		for d := range k.messages {
			k.mu.Lock()
			k.known.add(d.DeliveryTag)
			k.mu.Unlock()
			k.answer(d.DeliveryTag, requeue)
		}
	}
	k.mu.Lock()
	k.ended = true
	left := k.left
	k.left = nil
	last := k.open == 0
	k.mu.Unlock()
	for _, tag := range left {
		k.answer(tag, requeue)
	}
	if last || k.ch.IsClosed() {
		k.retire()
	}
}

// within runs what asks the server for something.
func (k *consumer) within(ask func()) {
	timer := time.AfterFunc(answerTimeout, k.session.kill)
	defer timer.Stop()
	ask()
}

// retire closes the channel when nothing is under way any more.
func (k *consumer) retire() {
	go func() { _ = k.close(k.reader.client.consume.ctx) }() // Reader.Close waits for it
}

// close writes the answers that are known and closes the channel: the server
// gives what has none to others.
func (k *consumer) close(ctx context.Context) (err error) {
	k.once.Do(func() {
		k.mu.Lock()
		k.closing = true
		k.mu.Unlock()
		published := make(chan struct{})
		go func() { k.retries.Wait(); close(published) }()
		select {
		case <-published:
		case <-ctx.Done():
			err = fault.Wrap(ctx.Err(), "close: wait for retries to be confirmed")
		}
		if e := k.acks.Close(ctx); err == nil {
			err = e
		}
		k.within(func() { _ = k.ch.Close() }) // else it is gone
		k.reader.mu.Lock()
		delete(k.reader.consumers, k)
		k.reader.mu.Unlock()
	})
	return err
}

// anchor keeps a queue that the server deletes with its last consumer. It has the
// lowest priority, takes one message at most, and gives that back.
type anchor struct {
	ch    *amqp.Channel
	timer *time.Timer
}

// hold keeps a queue until the next Read of it, or for lingerTime.
func (r *Reader) hold(s *session, queue string) {
	if r.ctx.Err() != nil {
		return
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return // the connection is gone, and with it the queue
	}
	_ = ch.Qos(1, 0, false) // Consume fails too
	_, err = ch.Consume(queue, "penstock-hold-"+rand.Text(), false, false, false, false, amqp.Table{"x-priority": int32(-1000)})
	if err != nil {
		_ = ch.Close() // the queue is gone
		return
	}
	a := &anchor{ch: ch}
	r.mu.Lock()
	old := r.anchors[queue]
	if r.closed {
		r.mu.Unlock()
		a.lift()
		return
	}
	r.anchors[queue] = a
	a.timer = time.AfterFunc(lingerTime, func() { r.release(queue) })
	r.mu.Unlock()
	old.lift()
}

// release lets go of a queue that is held.
func (r *Reader) release(queue string) {
	r.mu.Lock()
	a := r.anchors[queue]
	delete(r.anchors, queue)
	r.mu.Unlock()
	a.lift()
}

func (a *anchor) lift() {
	if a == nil {
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	_ = a.ch.Close() // it may be gone
}
