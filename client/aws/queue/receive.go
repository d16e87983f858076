package queue

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/fault"
)

// reader is the receives of one Read: one at least, more while their answers
// are full.
type reader struct {
	q    *Queue
	stop context.CancelFunc

	mu      sync.Mutex // guards what follows
	running int
	err     error // of the first receive that failed
}

func (r *reader) start(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running < loopsTop && r.err == nil {
		r.running++
		r.q.polls.Go(func() { r.loop(ctx) })
	}
}

// spare ends a loop unless it is the last.
func (r *reader) spare() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == 1 {
		return false
	}
	r.running--
	return true
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.stop()
	}
}

// failure returns why the reading ended.
func (r *reader) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	return errClosed
}

// loop receives until ctx ends. A receive under way is not cut then: what SQS
// hands out to one that is gone stays hidden for nothing. One that is late is done
// again, on another connection.
func (r *reader) loop(ctx context.Context) {
	for late := false; r.q.room(ctx); {
		n, err := r.q.receive()
		switch {
		case ctx.Err() != nil:
			return
		case !late && fault.KindOf(err) == fault.Timeout:
			late = true
			continue
		case err != nil:
			r.fail(err)
			return
		case n == r.q.o.Batch:
			r.start(ctx)
		case n < r.q.o.Batch/2 && r.spare():
			return
		}
		late = false
	}
}

// room waits until little is ready; false when ctx has ended.
func (q *Queue) room(ctx context.Context) bool {
	for {
		q.mu.Lock()
		ok, wake := len(q.ready) < readyLow && (q.o.Held == 0 || q.out < q.o.Held), q.wake
		q.mu.Unlock()
		if ok || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

// answerPatience is how long the answer of a receive may take beyond its wait.
// Whoever is behind the connection is gone then; what it handed out comes again.
const answerPatience = 10 * time.Second

// receive asks once and holds what comes.
func (q *Queue) receive() (int, error) {
	wait := min(q.o.Wait, MaxWait)
	ctx, cancel := context.WithTimeout(q.ctx, wait+answerPatience)
	defer cancel()
	out, err := q.api.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MaxNumberOfMessages: int32(q.o.Batch), WaitTimeSeconds: int32(wait / time.Second),
		VisibilityTimeout: int32(q.o.Visibility / time.Second), MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		return 0, client.Wrap(err, "receive from queue %s", q.url)
	}
	until := time.Now().Add(q.o.Visibility)
	ms := make([]*Message, len(out.Messages))
	for i := range out.Messages {
		ms[i] = q.message(&out.Messages[i], until)
	}
	q.hold(ms)
	return len(ms), nil
}

// hold takes messages in, or gives them back when nobody reads any more.
func (q *Queue) hold(ms []*Message) {
	q.mu.Lock()
	late := q.closed || q.reading == 0
	for _, m := range ms {
		m.Attempt = max(m.Attempt-q.again[m.ID], 1)
		q.held[m] = struct{}{}
		if late {
			m.settled = true
			continue
		}
		if behind, closed := q.groups[m.Group]; q.o.FIFO && closed {
			q.groups[m.Group] = append(behind, m)
			continue
		}
		if q.o.FIFO {
			q.groups[m.Group] = nil
		}
		q.ready = append(q.ready, m)
	}
	if !q.beating && len(q.held) > 0 && !q.closed {
		q.beating = true
		q.work.Go(q.beat)
	}
	q.notify()
	q.mu.Unlock()
	if late {
		for _, m := range ms {
			q.giveBack(m, 0, true)
		}
	}
}

// beat extends the invisibility of what is held until nothing is.
func (q *Queue) beat() {
	tick := time.NewTicker(q.o.Visibility / 3)
	defer tick.Stop()
	for {
		select {
		case <-q.ctx.Done():
			return
		case <-tick.C:
		}
		q.mu.Lock()
		if len(q.held) == 0 {
			q.beating = false
			q.mu.Unlock()
			return
		}
		now := time.Now()
		var due []*Message
		for m := range q.held {
			if left := m.until.Sub(now); !m.back && left > 0 && left < q.o.Visibility*3/4 {
				m.extending = true
				due = append(due, m)
			}
		}
		q.mu.Unlock()
		q.extend(due)
	}
}

// extend hides messages for another while. One that SQS no longer knows as ours
// is not extended again and not handed out.
func (q *Queue) extend(ms []*Message) {
	ctx, cancel := context.WithTimeout(q.ctx, q.o.Visibility/2)
	defer cancel()
	var group sync.WaitGroup
	limit := make(chan struct{}, parallel)
	for len(ms) > 0 {
		part := ms[:min(Entries, len(ms))]
		ms = ms[len(part):]
		limit <- struct{}{}
		group.Go(func() {
			defer func() { <-limit }()
			q.extendBatch(ctx, part)
		})
	}
	group.Wait()
}

func (q *Queue) extendBatch(ctx context.Context, ms []*Message) {
	start := time.Now()
	changes := make([]change, len(ms))
	for i, m := range ms {
		changes[i] = change{m, q.o.Visibility}
	}
	out, err := q.api.ChangeMessageVisibilityBatch(ctx, q.changes(changes))
	failed := map[int]bool{}
	if err == nil { // else tried again at the next beat, as long as there is time
		for _, f := range out.Failed {
			failed[index(f.Id)] = f.SenderFault
		}
	}
	var pending []change
	q.mu.Lock()
	for i, m := range ms {
		m.extending = false
		if m.pending != nil {
			pending = append(pending, *m.pending)
			m.pending = nil
		}
		switch lost, bad := failed[i]; {
		case err == nil && !bad:
			m.until = start.Add(q.o.Visibility)
		case lost:
			m.until = time.Time{}
		}
	}
	q.mu.Unlock()
	for _, c := range pending {
		q.show.Add(c, func(error) { q.drop1(c.m) })
	}
}

// index reads the id of an entry.
func index(id *string) int {
	n := 0
	for _, c := range aws.ToString(id) {
		n = n*10 + int(c-'0')
	}
	return n
}
