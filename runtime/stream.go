package runtime

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
)

// maxStreams bounds the streams of an instance: each is a route of its own.
const maxStreams = 1000

// stream is a subscription that a caller of the API holds open. Its route is
// started by the caller, at once, and after that tended with all others: it
// moves to a component that took another's place, and ends with one that went.
type stream struct {
	name  string // of its route
	sub   config.Subscription
	send  sendFunc
	ready chan struct{} // closed when events may be delivered
	left  chan struct{} // closed when the caller leaves
	over  chan error    // why it ended, when that was not for the caller to say

	mu   sync.Mutex // held while the route is started or stopped
	sum  uint64     // of what the route was made of
	gone bool       // the caller has left

	live atomic.Bool // its route runs
}

// streams are those open, by route name.
type streams struct {
	mu   sync.Mutex
	open map[string]*stream
	n    int
}

// Subscribe implements api.Streams.
func (r *Runtime) Subscribe(ctx context.Context, want *api.Stream) error {
	s, err := r.streams.add(want)
	if err != nil {
		return err
	}
	defer r.endStream(ctx, s)
	if err := r.awaitBus(ctx, want.PubSub); err != nil {
		return err
	}
	if err := r.applyStream(ctx, s); err != nil {
		return err
	}
	if err := want.Ready(); err != nil {
		return err
	}
	close(s.ready)
	if want.DeadLetterTopic != "" {
		nudge(r.opened) // its dead letters are to be collected
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.over:
		return err
	}
}

func (ss *streams) add(want *api.Stream) (*stream, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.open) >= maxStreams {
		return nil, fault.New(fault.Exhausted, "subscribe to %s/%s: there are %d streams already, the limit", want.PubSub, want.Topic, maxStreams)
	}
	ss.n++
	s := &stream{
		name: fmt.Sprintf("stream/%s/%s/%d", want.PubSub, want.Topic, ss.n),
		sub: config.Subscription{
			Name: "stream", PubSub: want.PubSub, Topic: want.Topic, Metadata: want.Metadata, DeadLetterTopic: want.DeadLetterTopic,
			Rules: []config.Rule{{Path: "/"}}, // what Dapr says of a stream
		},
		ready: make(chan struct{}), left: make(chan struct{}), over: make(chan error, 1),
	}
	s.send = func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		select {
		case <-s.ready:
			return want.Deliver(ctx, d)
		case <-s.left:
		case <-ctx.Done():
		}
		return cloudevents.Left("the stream did not begin")
	}
	ss.open[s.name] = s
	return s, nil
}

func (ss *streams) all() []*stream {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	out := make([]*stream, 0, len(ss.open))
	for _, s := range ss.open {
		out = append(out, s)
	}
	return out
}

// insteadOf returns the route of a stream of the same topic as that of another,
// or nothing. Their names differ in the number alone.
func (ss *streams) insteadOf(name string) string {
	topic := func(name string) string { return name[:strings.LastIndexByte(name, '/')+1] }
	for other := range ss.running() {
		if topic(other) == topic(name) {
			return other
		}
	}
	return ""
}

func (ss *streams) has(name string) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.open[name] != nil
}

func (ss *streams) remove(name string) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	delete(ss.open, name)
}

// running lists the streams whose routes run, as others are listed.
func (ss *streams) running() map[string]running {
	out := map[string]running{}
	for _, s := range ss.all() {
		if s.live.Load() {
			out[s.name] = running{sub: &s.sub, kind: "STREAMING", letters: deadLetterTopicOf(s.sub)}
		}
	}
	return out
}

// awaitBus waits until the pub/sub is there and open, for as long as the start
// of a route may take. Apps that start beside the instance subscribe early.
func (r *Runtime) awaitBus(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		why := "the instance is starting"
		if r.stopping.Load() {
			return fault.New(fault.Unavailable, "subscribe to %s: the instance is stopping", name)
		}
		if r.serving.Load() {
			if _, err := r.parts.bus(name); err != nil {
				return err
			}
			p := r.parts.find(name)
			if p != nil && p.ready() {
				return nil
			}
			if p != nil {
				why = cmp.Or(p.life.State().LastError, "it is not open yet")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "subscribe to %s: %s", name, why)
		}
	}
}

// applyStreams makes the routes of streams what they should be and returns what
// kept some from it. A stream that cannot go on is ended.
func (r *Runtime) applyStreams(ctx context.Context) map[string]error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed = map[string]error{}
	)
	for _, s := range r.streams.all() {
		select {
		case <-s.ready:
		default:
			continue // whoever opens it sees to it
		}
		wg.Go(func() {
			err := r.applyStream(ctx, s)
			switch {
			case err == nil:
			case fault.Retriable(err):
				mu.Lock()
				failed[s.name] = err
				mu.Unlock()
			default:
				select {
				case s.over <- err:
				default: // it was told before
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// applyStream starts the route of a stream, or starts it anew when its component
// is another one now.
func (r *Runtime) applyStream(ctx context.Context, s *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	}
	p := r.parts.find(s.sub.PubSub)
	sum := r.sumOf(s.sub.PubSub) ^ r.inboundSum(s.sub.PubSub, pubsubPolicies)
	if s.live.Load() && (p == nil || sum != s.sum) {
		r.stopStream(ctx, s)
	}
	switch {
	case s.live.Load():
		return nil
	case p == nil:
		return fault.New(fault.NotFound, "subscribe to %s/%s: no such pub/sub any more", s.sub.PubSub, s.sub.Topic)
	case !p.ready():
		return errClosed
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	route, err := r.routes.stream(ctx, s)
	if err == nil {
		err = r.add(route)
	}
	if err != nil {
		return err
	}
	s.sum = sum
	s.live.Store(true)
	r.log.Info("Route started", "route", s.name)
	return nil
}

// stopStream runs under the stream's mu. The router bounds how long it takes.
func (r *Runtime) stopStream(ctx context.Context, s *stream) {
	s.live.Store(false)
	if err := r.router.Remove(context.WithoutCancel(ctx), s.name); err != nil && fault.KindOf(err) != fault.NotFound {
		r.log.Warn("Route stopped with events under way; they stay with their source", "route", s.name, "error", err)
		return
	}
	r.log.Info("Route stopped", "route", s.name)
}

// endStream takes a stream away whose caller has left, or leaves now.
func (r *Runtime) endStream(ctx context.Context, s *stream) {
	close(s.left)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	if s.live.Load() {
		r.stopStream(ctx, s)
	}
	r.streams.remove(s.name)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unstarted, s.name)
	delete(r.paused, s.name) // no other has its number
	delete(r.paused, s.name) // none is called so again
}

// stream makes the route of a topic to a stream.
func (rs *routes) stream(ctx context.Context, s *stream) (router.Route, error) {
	// What a route remembers is that of all streams of the topic, since each
	// gets what the one before left.
	route, err := rs.topic(ctx, "stream/"+s.sub.PubSub+"/"+s.sub.Topic, s.sub)
	if err != nil {
		return route, err
	}
	route.Name = s.name
	route.Targets[0].Name, route.Targets[0].Send = "stream", s.send
	return route, nil
}
