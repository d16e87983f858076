package webhook

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// hook is the receiving half of one component.
type hook struct {
	name, path string
	o          options
	log        *slog.Logger
	now        func() time.Time
	scheme     scheme                     // nil for none
	memory     *memory                    // with answer outcome
	spool      *spool                     // with answer accepted
	queue      chan *cloudevents.Delivery // from requests to Read, unbuffered
	slots      chan struct{}              // one for each request handled
	requests   requests                   // those answered last
	cut        chan struct{}              // closed when running requests must end

	mu      sync.Mutex
	readers int
	stopped chan struct{} // closed while nobody reads
	active  int           // requests being handled
	closing bool
	idle    chan struct{}                              // closed when closing and nothing is active
	cancel  map[*context.CancelFunc]context.CancelFunc // ends those that read, after closing

	refused  int // since the last warning
	warnedAt time.Time
}

func newHook(name string, o options, log *slog.Logger) *hook {
	h := &hook{
		name: name, path: o.Path, o: o, log: log, now: time.Now, scheme: newScheme(o),
		queue:   make(chan *cloudevents.Delivery),
		slots:   make(chan struct{}, o.MaxConcurrency),
		cut:     make(chan struct{}),
		stopped: make(chan struct{}),
		idle:    make(chan struct{}),
		cancel:  map[*context.CancelFunc]context.CancelFunc{},
	}
	close(h.stopped)
	if h.path == "" {
		h.path = "/" + name
	}
	return h
}

// read emits what the requests bring, until ctx ends or the hook is closed.
func (h *hook) read(ctx context.Context, emit cloudevents.EmitFunc) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.startReading(&cancel)
	defer h.stopReading(&cancel)
	if h.spool != nil {
		return h.spool.run(ctx, emit)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-h.queue:
			if err := emit(ctx, d); err != nil {
				d.Settle(cloudevents.Left(err.Error()))
			}
		}
	}
}

func (h *hook) startReading(cancel *context.CancelFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cancel[cancel] = *cancel
	if h.readers == 0 {
		h.stopped = make(chan struct{})
	}
	h.readers++
}

func (h *hook) stopReading(cancel *context.CancelFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.cancel, cancel)
	h.readers--
	if h.readers == 0 {
		close(h.stopped)
	}
}

// endReading makes those return that read still.
func (h *hook) endReading() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, cancel := range h.cancel {
		cancel()
	}
}

// ready tells whether requests are taken now.
func (h *hook) ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readers > 0 && !h.closing
}

// enter counts a request in. The channel is closed when nobody reads any more;
// ok is false when no request is taken now. Leave must follow when it is true.
func (h *hook) enter() (stopped <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == 0 || h.closing {
		return nil, false
	}
	h.active++
	return h.stopped, true
}

func (h *hook) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active--
	if h.active == 0 && h.closing {
		close(h.idle)
	}
}

// close takes no more requests and waits for the running ones. When ctx ends
// they are answered 503.
func (h *hook) close(ctx context.Context) error {
	h.mu.Lock()
	if h.closing {
		h.mu.Unlock()
		return nil
	}
	h.closing = true
	if h.active == 0 {
		close(h.idle)
	}
	h.mu.Unlock()
	defer h.endReading()
	select {
	case <-h.idle:
		return nil
	case <-ctx.Done():
	}
	close(h.cut)
	// Those that wait for an outcome leave at once; the time is for one that is
	// in the middle of reading its body, which is not worth waiting for.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	select {
	case <-h.idle:
	case <-last.Done():
	}
	return fault.New(fault.Timeout, "close webhook: requests were still running and were answered 503")
}

// note logs why a request was refused, and warns of their number at most once
// a minute.
func (h *hook) note(remote string, reason error) {
	h.log.Debug("webhook request refused", "remote", remote, "reason", reason)
	h.mu.Lock()
	h.refused++
	n, now := h.refused, h.now()
	due := now.Sub(h.warnedAt) >= time.Minute
	if due {
		h.refused, h.warnedAt = 0, now
	}
	h.mu.Unlock()
	if due {
		h.log.Warn("webhook requests refused: not genuine", "count", n, "last", reason)
	}
}
