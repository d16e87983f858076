package rabbitmq

import (
	"context"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Backlog counts what is ready in a queue, what waits in its retry queues as far as
// they were used by this connection, and what this reader holds. What other processes
// hold is not in it: the server does not tell that on this way, and neither an age. A
// queue that is not there has none. Exclusive: the queue belongs to the connection
// that reads.
func (r *Reader) Backlog(ctx context.Context, queue string, exclusive bool) (cloudevents.Backlog, error) {
	if !r.enter() {
		return cloudevents.Backlog{}, errClosed
	}
	if !r.counting.TryLock() {
		r.work.Done()
		return cloudevents.Backlog{}, fault.New(fault.Unavailable, "count messages of queue %s: the server has not answered the last time", queue)
	}
	type answer struct {
		n   int64
		err error
	}
	told := make(chan answer, 1)
	go func() { // the library waits for as long as the connection lives
		defer r.work.Done()
		defer r.counting.Unlock()
		n, err := r.client.ready(ctx, queue, exclusive)
		told <- answer{n, err}
	}()
	select {
	case a := <-told:
		return cloudevents.Backlog{Messages: a.n + r.held(queue)}, fault.Wrap(a.err, "count messages of queue %s", queue)
	case <-ctx.Done():
		return cloudevents.Backlog{}, fault.Wrap(ctx.Err(), "count messages of queue %s", queue)
	}
}

// held is how many messages of a queue were delivered here and have no outcome.
func (r *Reader) held(queue string) (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.consumers {
		if k.feed.Queue == queue {
			n += k.waiting()
		}
	}
	return n
}

func (k *consumer) waiting() (n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.known.list {
		if k.known.list[i].state == waiting {
			n++
		}
	}
	return n
}

// ready counts what waits in a queue and in its retry queues.
func (c *Client) ready(ctx context.Context, queue string, exclusive bool) (int64, error) {
	l := c.publish
	if exclusive {
		l = c.consume
	}
	s, err := l.session(ctx, publishPatience)
	if err != nil {
		return 0, err
	}
	n, err := s.count(queue)
	for _, name := range c.retryQueues(queue) {
		if err != nil || ctx.Err() != nil {
			break
		}
		var more int64
		more, err = s.count(name)
		n += more
	}
	return n, err
}

// retryQueues are those of a queue that were made on the present connection.
func (c *Client) retryQueues(queue string) (names []string) {
	c.publish.mu.Lock()
	s := c.publish.current
	c.publish.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.made {
		if strings.HasPrefix(name, queue+retryInfix) {
			names = append(names, name)
		}
	}
	return names
}

// count returns how many messages are ready in a queue, 0 when it is not there.
func (s *session) count(queue string) (n int64, err error) {
	err = s.declare(func(ch *amqp.Channel) error {
		// Nothing but the name counts for a passive declaration.
		q, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil)
		n = int64(q.Messages)
		return err
	})
	if fault.KindOf(err) == fault.NotFound {
		return 0, nil
	}
	return n, err
}
