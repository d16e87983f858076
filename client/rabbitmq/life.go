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
		k.putBack()
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

// putBack gives back what was fetched and that nobody has taken. It waits until
// the server has it in its place, so that the next Read does not begin behind it.
func (k *consumer) putBack() {
	var back []answer
	for d := range k.messages {
		k.mu.Lock()
		k.known.add(d.DeliveryTag)
		k.mu.Unlock()
		back = append(back, answer{d.DeliveryTag, requeue})
	}
	if len(back) == 0 {
		return
	}
	_ = k.acks.Do(k.reader.client.consume.ctx, back...) // a channel that is gone gives all back
	k.within(func() { _ = k.ch.Qos(1, 0, false) })      // answered in turn
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
		close(k.gone)
	})
	return err
}

// anchor keeps a queue that the server deletes with its last consumer. It has the
// lowest priority and takes one message at most, which is the first that the
// next Read hands out.
type anchor struct {
	session  *session
	ch       *amqp.Channel
	tag      string
	messages <-chan amqp.Delivery
	timer    *time.Timer
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
	a := &anchor{session: s, ch: ch, tag: "penstock-hold-" + rand.Text()}
	_ = ch.Qos(1, 0, false) // Consume fails too
	a.messages, err = ch.Consume(queue, a.tag, false, false, false, false, amqp.Table{"x-priority": int32(-1000)})
	if err != nil {
		_ = ch.Close() // the queue is gone
		return
	}
	r.mu.Lock()
	old := r.anchors[queue]
	closed := r.closed
	if !closed {
		r.anchors[queue] = a
		a.timer = time.AfterFunc(lingerTime, func() { r.take(queue).lift() })
	}
	r.mu.Unlock()
	if closed {
		a.lift()
	}
	old.lift()
}

// headTime is how long a message that the anchor has is waited for.
const headTime = 50 * time.Millisecond

// head changes the message that the anchor has for the first of the queue: since
// it took it, others may have come back before that.
func (a *anchor) head() {
	_ = a.ch.Qos(1, 0, false) // what was delivered has come before the answer
	timer := time.NewTimer(headTime)
	defer timer.Stop()
	select {
	case d, ok := <-a.messages:
		if ok {
			_ = a.ch.Nack(d.DeliveryTag, false, true) // a channel that is gone gives it back
		}
	case <-timer.C:
	}
}

// take returns what holds a queue, or nil; it is the caller's then.
func (r *Reader) take(queue string) *anchor {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.anchors[queue]
	delete(r.anchors, queue)
	return a
}

// lift lets go of the queue.
func (a *anchor) lift() {
	if a == nil {
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	_ = a.ch.Close() // it may be gone
}
