package component

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Word says in one word how a component is.
type Word string

// The words.
const (
	// Opening: the first try is under way.
	Opening Word = "opening"
	// Ready: open and in use.
	Ready Word = "ready"
	// Failing: it could not be opened yet and is tried again.
	Failing Word = "failing"
	// Failed: it cannot be opened as it is configured.
	Failed Word = "failed"
	// Closed: it was closed.
	Closed Word = "closed"
)

// State is how a component is, since when, and why.
type State struct {
	Word      Word
	Since     time.Time
	LastError string
}

// ErrClosed is the error of using a component after Close. Its kind is
// Unavailable.
var ErrClosed = fault.New(fault.Unavailable, "use component: it is closed")

// The pauses between tries to open, and the default limit of one try.
const (
	firstPause  = 200 * time.Millisecond
	lastPause   = 15 * time.Second
	defaultOpen = 5 * time.Second
)

// Instance is one configured component that opens in the background. It is
// safe for concurrent use.
type Instance[D Driver] struct {
	def     Definition
	env     Env
	items   []config.Item
	timeout time.Duration

	first chan struct{} // closed after the first try, whatever came of it
	fixed chan struct{} // closed when ready, failed or closed

	mu     sync.Mutex
	driver D
	state  State
	err    error
	users  int
	idle   chan struct{} // made by Close when there are users; closed by the last
}

// NewInstance makes an instance; Run opens it. timeout bounds one try to open;
// zero is 5 s.
func NewInstance[D Driver](def Definition, env Env, items []config.Item, timeout time.Duration) *Instance[D] {
	if timeout <= 0 {
		timeout = defaultOpen
	}
	return &Instance[D]{
		def: def, env: env, items: items, timeout: timeout,
		first: make(chan struct{}), fixed: make(chan struct{}),
		state: State{Word: Opening, Since: time.Now()},
	}
}

// Run opens the component, trying again with a growing pause (200 ms to 15 s)
// for as long as the error is one that may pass. It returns when the component
// is ready, cannot be opened as it is configured, or ctx ends.
func (i *Instance[D]) Run(ctx context.Context) {
	pause := firstPause
	for {
		driver, err := i.try(ctx)
		if i.note(ctx, driver, err) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-i.fixed: // closed meanwhile
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// try opens once; a panic of the component is an error.
func (i *Instance[D]) try(ctx context.Context) (driver D, err error) {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Invalid, "open component %s: panic: %v\n%s", i.env.Name, p, debug.Stack())
		}
	}()
	opened, err := i.def.Open(ctx, i.env, i.items)
	if err != nil {
		return driver, err
	}
	driver, ok := opened.(D)
	if !ok {
		return driver, fault.New(fault.Invalid, "open component %s: %s is not what its kind asks for", i.env.Name, i.def.Type)
	}
	return driver, nil
}

// note keeps the outcome of a try and tells whether it was the last one.
func (i *Instance[D]) note(ctx context.Context, driver D, err error) (done bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	defer i.firstOver()
	if i.state.Word == Closed {
		if err == nil {
			// Close came while the component was opening.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.timeout)
			defer cancel()
			i.err = fault.Wrap(driver.Close(ctx), "close component %s", i.env.Name)
		}
		return true
	}
	if err == nil {
		i.driver, i.err = driver, nil
		i.state = State{Word: Ready, Since: time.Now()}
		close(i.fixed)
		return true
	}
	if _, wrong := errors.AsType[config.Problems](err); wrong {
		err = fault.As(fault.Invalid, err)
	}
	i.err = err
	word := Failing
	if !fault.Retriable(err) {
		word = Failed
		defer close(i.fixed)
	}
	if i.state.Word != word {
		i.state = State{Word: word, Since: time.Now()}
	}
	i.state.LastError = err.Error()
	return word == Failed
}

// firstOver marks the first try as done. The caller holds mu.
func (i *Instance[D]) firstOver() {
	select {
	case <-i.first:
	default:
		close(i.first)
	}
}

// Wait returns the outcome of the first try to open: nil when the component is
// ready, and its error otherwise, which may be one that passes.
func (i *Instance[D]) Wait(ctx context.Context) error {
	select {
	case <-i.first:
	case <-ctx.Done():
		return fault.New(fault.Timeout, "open component %s: still opening", i.env.Name)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// Await returns the driver as soon as the component is ready. It fails when the
// component cannot be opened, is closed, or ctx ends.
func (i *Instance[D]) Await(ctx context.Context) (D, error) {
	select {
	case <-i.fixed:
	case <-ctx.Done():
		var none D
		return none, ctx.Err()
	}
	return i.Driver()
}

// Driver returns the driver when the component is ready, else an error of kind
// Unavailable (or that of the failed opening) that says why it is not.
func (i *Instance[D]) Driver() (D, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.current()
}

func (i *Instance[D]) current() (driver D, err error) {
	switch i.state.Word {
	case Ready:
		return i.driver, nil
	case Closed:
		return driver, ErrClosed
	case Failed:
		return driver, fault.Wrap(i.err, "open component %s", i.env.Name)
	case Failing:
		return driver, fault.New(fault.Unavailable, "open component %s: %w", i.env.Name, i.err)
	default:
		return driver, fault.New(fault.Unavailable, "use component %s: it is still opening", i.env.Name)
	}
}

// Acquire is Driver for the time of one call: Close waits until Release.
func (i *Instance[D]) Acquire() (D, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	d, err := i.current()
	if err == nil {
		i.users++
	}
	return d, err
}

// Release ends a call that began with an Acquire without error.
func (i *Instance[D]) Release() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.users--; i.users == 0 && i.idle != nil {
		close(i.idle)
	}
}

// State tells how the component is.
func (i *Instance[D]) State() State {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
}

// Close frees the component: it refuses new calls, waits for those under way
// until ctx ends, and closes the driver. Closing twice does nothing more. A
// component that is still opening is closed by Run when it is open.
func (i *Instance[D]) Close(ctx context.Context) error {
	i.mu.Lock()
	was := i.state.Word
	if was == Closed {
		i.mu.Unlock()
		return nil
	}
	i.state = State{Word: Closed, Since: time.Now()}
	if was == Opening || was == Failing {
		close(i.fixed)
	}
	var idle chan struct{}
	if i.users > 0 {
		i.idle = make(chan struct{})
		idle = i.idle
	}
	i.mu.Unlock()
	if was != Ready {
		return nil
	}
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
	return closeDriver(ctx, i.env.Name, i.driver)
}

// closeDriver turns a panic of the component into an error.
func closeDriver(ctx context.Context, name string, d Driver) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		err = fault.Wrap(err, "close component %s", name)
	}()
	return d.Close(ctx)
}
