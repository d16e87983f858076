package component

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Waits of an [Instance].
const (
	openTimeout = 5 * time.Second // of one try, unless the component says otherwise
	retryFirst  = 200 * time.Millisecond
	retryMost   = 15 * time.Second
	waitMost    = 5 * time.Minute // that a server may ask for
)

// The words of a [State].
const (
	Opening = "opening" // the first try is under way
	Ready   = "ready"
	Failing = "failing" // tried in vain, and tried again
	Failed  = "failed"  // for good: the configuration is wrong
	Closed  = "closed"
)

// State says how an instance is doing.
type State struct {
	Word      string    // opening, ready, failing, failed or closed
	Since     time.Time // when it became so
	LastError string    // of the last try; empty when ready
}

// Instance is one configured component that opens in the background, so that a
// server that cannot be reached never holds up a start. All methods may be used
// by many goroutines. Make one with [NewInstance], call Run in a goroutine of
// its own and Close at the end.
type Instance[D Driver] struct {
	def     Definition
	env     Env
	items   []config.Item
	secrets []string // values among them that must not be shown
	timeout time.Duration

	live    atomic.Pointer[D] // the driver while it may be used
	outcome chan struct{}     // closed after the first try, or when there is none
	known   sync.Once         // closes outcome
	closing sync.Once
	closed  error         // what Close returns; written inside closing
	users   atomic.Int64  // calls between Acquire and Release
	idle    chan struct{} // gets one when users falls to zero

	mu      sync.Mutex // guards what follows
	state   State
	err     error              // of the last try
	cancel  context.CancelFunc // ends Run; nil before Run
	stopped chan struct{}      // closed when Run has returned; nil before Run
}

// NewInstance makes an instance that is not opened yet. A timeout of zero is 5 s
// for one try.
func NewInstance[D Driver](def Definition, env Env, items []config.Item, timeout time.Duration) *Instance[D] {
	if timeout <= 0 {
		timeout = openTimeout
	}
	secrets := def.secrets(items)
	env.Logger = discreet(env.Logger, secrets)
	return &Instance[D]{
		def: def, env: env, items: items, secrets: secrets, timeout: timeout, outcome: make(chan struct{}), idle: make(chan struct{}, 1),
		state: State{Word: Opening, Since: time.Now()},
	}
}

// Run opens the component. As long as trying again may help it does so for
// ever, after pauses that double from 200 ms to 15 s. It returns nil when the
// component is open, when ctx ends or Close was called, and the error when the
// component will never open. Call it at most once. A panic while opening counts
// as an error of kind Internal.
func (i *Instance[D]) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped, ok := i.start(cancel)
	if !ok {
		return nil
	}
	defer close(stopped)
	defer i.known.Do(func() { close(i.outcome) })
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		d, err := i.try(ctx)
		if err == nil || ctx.Err() == nil {
			i.env.Metrics.Opened(i.def.Type, i.env.Name, err)
		}
		switch {
		case err == nil:
			return i.ready(ctx, d)
		case ctx.Err() != nil:
			return nil
		case !fault.Retriable(err):
			i.turn(Failed, err)
			return err
		}
		i.turn(Failing, err)
		timer := time.NewTimer(max(pause, min(fault.RetryAfter(err), waitMost)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// start notes that Run has begun, unless the instance is closed.
func (i *Instance[D]) start(cancel context.CancelFunc) (stopped chan struct{}, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state.Word == Closed {
		return nil, false
	}
	i.cancel, i.stopped = cancel, make(chan struct{})
	return i.stopped, true
}

// try opens the component once.
func (i *Instance[D]) try(ctx context.Context) (d D, err error) {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "open component %s: panic: %v", i.env.Name, p)
			err = i.Hide(err)
			if i.env.Logger != nil { // the stack is not for whoever asks for the state
				i.env.Logger.Error("Component panicked while opening", "panic", p, "stack", string(debug.Stack()))
			}
		}
	}()
	opened, err := i.def.Open(ctx, i.env, i.items)
	if err != nil {
		return d, fault.Wrap(i.Hide(err), "open component %s", i.env.Name)
	}
	d, ok := opened.(D)
	if !ok {
		err := fault.New(fault.Invalid, "open component %s: %T is not what a %s must be", i.env.Name, opened, i.def.Type)
		return d, errors.Join(err, discard(ctx, opened))
	}
	return d, nil
}

// discard closes a driver that nobody will use.
func discard(ctx context.Context, d Driver) error {
	if d == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
	defer cancel()
	return d.Close(ctx)
}

// ready hands the driver out, or closes it when Close came first.
func (i *Instance[D]) ready(ctx context.Context, d D) error {
	i.mu.Lock()
	if i.state.Word != Closed {
		defer i.mu.Unlock()
		i.live.Store(&d)
		i.become(Ready, nil)
		return nil
	}
	i.mu.Unlock()
	return discard(ctx, d)
}

func (i *Instance[D]) turn(word string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state.Word != Closed {
		i.become(word, err)
	}
}

// become changes the state; the caller holds mu.
func (i *Instance[D]) become(word string, err error) {
	if i.state.Word != word {
		i.state = State{Word: word, Since: time.Now()}
	}
	i.err, i.state.LastError = err, ""
	if err != nil {
		i.state.LastError = err.Error()
	}
	i.known.Do(func() { close(i.outcome) })
}

// Driver returns the opened component. Until it is open, the error is of kind
// Unavailable and names the last try's; when it will never open, the error is
// that of the try.
func (i *Instance[D]) Driver() (d D, err error) {
	if p := i.live.Load(); p != nil {
		return *p, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	switch i.state.Word {
	case Failed:
		return d, i.err
	case Closed:
		return d, fault.New(fault.Unavailable, "component %s is closed", i.env.Name)
	}
	if i.err != nil {
		return d, fault.New(fault.Unavailable, "component %s is not ready: %w", i.env.Name, i.err)
	}
	return d, fault.New(fault.Unavailable, "component %s is still opening", i.env.Name)
}

// Wait waits for the end of the first try and returns nil when the component is
// open, else the error of the last try: of a retriable kind when Run goes on
// trying. When ctx ends first it returns that as an error of kind Timeout or
// Unavailable.
func (i *Instance[D]) Wait(ctx context.Context) error {
	select {
	case <-i.outcome:
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "wait for component %s", i.env.Name)
	}
	i.mu.Lock()
	err := i.err
	i.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = i.Driver()
	return err
}

// Capabilities returns the words of the metadata document: what the open driver
// says, else what the definition does.
func (i *Instance[D]) Capabilities() []string {
	if p := i.live.Load(); p != nil {
		if c, ok := Driver(*p).(Capable); ok {
			return c.Capabilities()
		}
	}
	return i.def.About.Capabilities
}

// State returns how the instance is doing.
func (i *Instance[D]) State() State {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
}

// Close ends Run, waits for it and for the calls between Acquire and Release
// until ctx ends, and closes the driver. A driver
// that opens only after that is closed by Run. Every call returns the same
// error, after the first call is through.
func (i *Instance[D]) Close(ctx context.Context) error {
	i.closing.Do(func() { i.closed = i.shut(ctx) })
	return i.closed
}

func (i *Instance[D]) shut(ctx context.Context) error {
	i.mu.Lock()
	cancel, stopped := i.cancel, i.stopped
	i.become(Closed, nil)
	i.mu.Unlock()
	live := i.live.Swap(nil)
	if cancel == nil {
		return nil
	}
	cancel()
	if live == nil {
		select {
		case <-stopped:
			return nil
		case <-ctx.Done():
			return fault.Wrap(ctx.Err(), "close component %s: it is still opening", i.env.Name)
		}
	}
	<-stopped // at once: Run had nothing left to do
	i.awaitIdle(ctx)
	return fault.Wrap(i.Hide((*live).Close(ctx)), "close component %s", i.env.Name)
}
