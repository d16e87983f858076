package mqtt

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Client is one component's use of a server.
type Client struct {
	config  Config
	log     *slog.Logger
	name    string // of this client, in agreements
	out     *publisher
	release func() error
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	mu       sync.Mutex
	sessions map[sessionKey]*session
	leases   map[string]*lease
	closed   bool
	running  sync.WaitGroup // reads, sessions and leases
}

// Open connects for publishing, or joins the components that are connected with
// the same options already. Kinds: Invalid for options that cannot be understood,
// Denied when the server refuses the identity, Unavailable when it does not
// answer. Close must be called.
func Open(ctx context.Context, env component.Env, conf Config) (*Client, error) {
	if env.Shared == nil {
		env.Shared = &component.Shared{}
	}
	log := env.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	out, release, err := component.Share(env.Shared, conf.key(), func() (*publisher, func() error, error) {
		p, err := openPublisher(ctx, conf, log)
		if err != nil {
			return nil, nil, err
		}
		return p, p.close, nil
	})
	if err != nil {
		return nil, fault.Wrap(err, "connect to MQTT server")
	}
	c := &Client{
		config: conf, log: log, name: rand.Text()[:16], out: out, release: release,
		sessions: map[sessionKey]*session{}, leases: map[string]*lease{},
	}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return c, nil
}

// Publish publishes messages in order. It returns nil when the server has all of
// them, else one error for each message, nil for those that it has.
func (c *Client) Publish(ctx context.Context, list []Message) []error {
	if c.ctx.Err() != nil {
		return all(len(list), fault.New(fault.Unavailable, "publish: already closed"))
	}
	return c.out.publish(ctx, list)
}

// Close ends the reads, acknowledges what was settled, and disconnects. What is
// not settled stays with the server.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	already := c.closed
	c.closed = true
	c.mu.Unlock()
	if already {
		return nil
	}
	c.cancel()
	ended := make(chan struct{})
	go func() { c.running.Wait(); close(ended) }()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = fault.Wrap(ctx.Err(), "wait for subscriptions")
	}
	return errors.Join(err, c.release())
}

// enter counts something that Close waits for; false when it is too late.
func (c *Client) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running.Add(1)
	return true
}

const (
	mostPending    = 256 // publishes without an answer
	publishTimeout = 30 * time.Second
	retryFirst     = 100 * time.Millisecond // pauses before connecting again
	retryMost      = 2 * time.Second
)

// publisher is one connection that publishes, made again for ever.
type publisher struct {
	config Config
	log    *slog.Logger
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	mu  sync.Mutex
	w   wire  // nil while there is none
	err error // why
}

func openPublisher(ctx context.Context, conf Config, log *slog.Logger) (*publisher, error) {
	p := &publisher{config: conf, log: log, slots: make(chan struct{}, mostPending), done: make(chan struct{})}
	w, lost, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	p.w = w
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go p.run(w, lost)
	return p, nil
}

func (p *publisher) connect(ctx context.Context) (wire, chan error, error) {
	lost := make(chan error, 1)
	w, _, err := p.config.dial(ctx, dialing{
		id: "penstock-" + rand.Text()[:12], clean: true,
		lost: func(err error) { lost <- classify(err) },
	})
	return w, lost, err
}

// run keeps the connection until close.
func (p *publisher) run(w wire, lost chan error) {
	defer close(p.done)
	for {
		var err error
		select {
		case err = <-lost:
		case <-p.ctx.Done():
		}
		p.set(nil, err)
		w.close()
		for wait := retryFirst; ; wait = min(2*wait, retryMost) {
			if p.ctx.Err() != nil {
				return
			}
			if err != nil {
				p.log.Warn("connection to the MQTT server lost", "error", err)
			}
			if w, lost, err = p.connect(p.ctx); err == nil {
				break
			}
			p.set(nil, err)
			pause(p.ctx, wait)
		}
		p.set(w, nil)
	}
}

// pause waits.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (p *publisher) set(w wire, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.w, p.err = w, err
}

func (p *publisher) wire() (wire, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		if p.err != nil {
			return nil, fault.New(fault.Unavailable, "publish: no connection: %w", p.err)
		}
		return nil, fault.New(fault.Unavailable, "publish: no connection")
	}
	return p.w, nil
}

func (p *publisher) close() error {
	p.cancel()
	<-p.done
	return nil
}

// all is the same error for each of n messages.
func all(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// publish sends messages one behind the other and waits for the answers
// meanwhile. What follows one that could not be sent is not sent either.
func (p *publisher) publish(ctx context.Context, list []Message) []error {
	if len(list) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return all(len(list), fault.Wrap(fault.As(fault.Unavailable, err), "publish"))
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	w, err := p.wire()
	if err != nil {
		return all(len(list), err)
	}
	errs, failed := make([]error, len(list)), false
	waits := make([]func(context.Context) error, len(list))
	settle := func(i int) {
		if err := waits[i](ctx); err != nil {
			errs[i], failed = fault.Wrap(classify(err), "publish"), true
		}
		<-p.slots
		waits[i] = nil
	}
	next := 0 // the first that waits for its answer
	for i := range list {
		if err := p.slot(ctx, func() bool {
			if next == i {
				return false
			}
			settle(next)
			next++
			return true
		}); err == nil {
			waits[i], err = w.send(ctx, &list[i])
			if err != nil {
				<-p.slots
			}
			errs[i] = err
		} else {
			errs[i] = err
		}
		if errs[i] == nil {
			continue
		}
		failed = true
		copy(errs[i:], all(len(errs)-i, fault.Wrap(classify(errs[i]), "publish")))
		list = list[:i]
		break
	}
	for ; next < len(list); next++ {
		settle(next)
	}
	if !failed {
		return nil
	}
	return errs
}

// slot takes one of those for messages without an answer. One's own make room
// first, so that two that wait do not wait for each other.
func (p *publisher) slot(ctx context.Context, own func() bool) error {
	for {
		select {
		case p.slots <- struct{}{}:
			return nil
		default:
		}
		if own() {
			continue
		}
		select {
		case p.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
