package snssqs

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// group is one consumer group: a queue that several topics are delivered to, and
// those of its subscriptions that run here.
type group struct {
	d    *driver
	name string // of the queue

	mu      sync.Mutex // guards what follows
	q       *queue.Queue
	arn     string
	gone    bool                 // the queue was not there when last asked
	inboxes map[string]*inbox    // by ARN of the topic
	ended   chan struct{}        // closed when the reading has failed; nil when nobody reads
	err     error                // why
	stop    context.CancelFunc   // ends the reading
	stopped chan struct{}        // closed when it has ended
	checked map[string]time.Time // when a topic's subscription was last made sure of
	unknown map[string]*absence  // topics that nobody here subscribes to
}

// absence is that of a subscription: since when its messages wait, and how long
// those that come now are to.
type absence struct {
	since time.Time
	pause time.Duration
}

// inbox is where the subscriptions of one topic take their messages.
type inbox struct {
	ch    chan *queue.Message
	users int
}

// group finds or makes a consumer group.
func (d *driver) group(consumer string) (*group, error) {
	name := awsName(consumer, d.o.FIFO)
	if name == "" {
		return nil, fault.New(fault.Invalid, "consumerID %q has no letter or digit that SQS allows", consumer)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	g := d.groups[name]
	if g == nil {
		g = &group{d: d, name: name, inboxes: map[string]*inbox{}, checked: map[string]time.Time{}, unknown: map[string]*absence{}}
		d.groups[name] = g
	}
	return g, nil
}

// serve hands a topic's messages to emit until ctx ends or the reading fails.
func (g *group) serve(ctx context.Context, arn, topic string, emit cloudevents.EmitFunc) error {
	in, ended := g.enter(ctx, arn)
	if in == nil {
		return errClosed
	}
	defer g.leave(arn)
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			g.mu.Lock()
			defer g.mu.Unlock()
			if ctx.Err() != nil {
				return nil
			}
			return g.err
		case <-check.C:
			// A topic that somebody has deleted and made again has lost its
			// subscriptions, which nothing else tells.
			if _, err := g.d.attach(ctx, g, topic); err != nil && ctx.Err() == nil {
				return err
			}
		case m := <-in.ch:
			d := delivery(m)
			d.Settle = m.Settle
			if emit(ctx, d) != nil {
				m.Untake(ctx)
			}
		}
	}
}

// checkInterval is how often the entities of a subscription are made sure of.
const checkInterval = 20 * time.Second

// enter counts a subscription in, and begins to read when it is the first.
func (g *group) enter(ctx context.Context, arn string) (*inbox, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.q == nil {
		return nil, nil
	}
	in := g.inboxes[arn]
	if in == nil {
		in = &inbox{ch: make(chan *queue.Message)}
		g.inboxes[arn] = in
	}
	in.users++
	delete(g.unknown, arn)
	if g.ended == nil {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		g.ended, g.stopped, g.stop = make(chan struct{}), make(chan struct{}), cancel
		q, ended, stopped := g.q, g.ended, g.stopped
		go func() {
			defer close(stopped)
			err := q.Read(ctx, g.route)
			g.mu.Lock()
			if g.err = err; g.ended == ended {
				g.ended = nil
			}
			g.gone = fault.KindOf(err) == fault.NotFound && err != nil
			g.mu.Unlock()
			close(ended)
		}()
	}
	return in, g.ended
}

// leave counts a subscription out. The last one ends the reading and waits for
// that.
func (g *group) leave(arn string) {
	g.mu.Lock()
	in := g.inboxes[arn]
	if in.users--; in.users == 0 {
		delete(g.inboxes, arn)
	}
	if len(g.inboxes) > 0 {
		g.mu.Unlock()
		return
	}
	stop, stopped := g.stop, g.stopped
	g.ended = nil
	g.mu.Unlock()
	stop()
	<-stopped
}

const (
	// routePatience is how long a topic whose subscriptions take nothing may
	// hold up the others of its group.
	routePatience = time.Second
	// stuckPause is how long its messages then wait in the queue.
	stuckPause = 2 * time.Second
	// unknownPause is how long messages of a topic that nobody here subscribes
	// to wait for somebody who does, at first and at most.
	unknownPause, unknownTop = time.Second, 30 * time.Second
	// foreign is how many such topics are remembered.
	foreign = 100
)

// route hands a message to the subscriptions of its topic.
func (g *group) route(ctx context.Context, m *queue.Message) error {
	g.mu.Lock()
	arn := topicOf(m)
	in := g.inboxes[arn]
	if in == nil && arn == "" && len(g.inboxes) == 1 { // raw delivery says no topic
		for _, in = range g.inboxes {
			break
		}
	}
	alone := len(g.inboxes) == 1
	if in == nil {
		pause := g.absent(arn)
		g.mu.Unlock()
		m.Defer(pause)
		return nil
	}
	g.mu.Unlock()
	var patience <-chan time.Time
	if !alone {
		t := time.NewTimer(routePatience)
		defer t.Stop()
		patience = t.C
	}
	select {
	case in.ch <- m:
	case <-patience:
		m.Defer(stuckPause)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// absent returns how long a message waits whose topic nobody here subscribes to:
// the longer, the longer nobody does. A topic that stays so is told once. The
// caller holds mu.
func (g *group) absent(arn string) time.Duration {
	a, now := g.unknown[arn], time.Now()
	switch {
	case a == nil && len(g.unknown) >= foreign:
		return unknownTop
	case a == nil:
		g.unknown[arn] = &absence{since: now, pause: unknownPause}
		return unknownPause
	case now.Sub(a.since) < 2*a.pause || a.pause == unknownTop:
		return a.pause
	}
	if a.pause *= 2; a.pause == 4*unknownPause {
		g.d.log.Warn("queue has messages of a topic without a subscription here: they stay there", "queue", g.name, "topic", arn)
	}
	a.pause = min(a.pause, unknownTop)
	return a.pause
}

// backlog counts what the queue has, of all topics of the group.
func (g *group) backlog(ctx context.Context) (b cloudevents.Backlog, err error) {
	g.mu.Lock()
	q := g.q
	g.mu.Unlock()
	if q == nil {
		return b, nil // nobody has asked for it yet
	}
	return q.Backlog(ctx)
}

// close ends the reading and settles.
func (g *group) close(ctx context.Context) error {
	g.mu.Lock()
	q := g.q
	g.q = nil
	g.mu.Unlock()
	if q == nil {
		return nil
	}
	return q.Close(ctx)
}
