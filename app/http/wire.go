package http

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
)

const (
	// smallBody is the largest body that goes over the wire. It fits into the
	// buffers of the socket, so an app that answers before it has read all of
	// it blocks nobody.
	smallBody = 64 << 10
	// idleTime is how long an unused connection is kept.
	idleTime = 90 * time.Second
)

// wire is HTTP/1.1 with small requests to one address. net/http's Transport
// can do more and keeps two goroutines for each connection, through which every
// request and answer passes; here the caller writes and reads itself, which
// halves the cost of a delivery. Answers are read by net/http.
type wire struct {
	address string
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	most    int // idle connections kept

	mu    sync.Mutex
	idle  []*line // the one used last is the last
	sweep *time.Timer
}

// line is one connection.
type line struct {
	net.Conn
	limit io.LimitedReader // what may still be read
	in    *bufio.Reader
	out   []byte // the request, reused
	used  bool   // it has carried an answer
	since time.Time
	glance
}

// message is one request, ready to be written.
type message struct {
	method string
	target string // path and query
	host   string
	header http.Header
	body   []byte
	// until is when to give up; zero leaves that to the context.
	until time.Time
	// again tells that it does no harm to do it twice.
	again bool
}

func newWire(address string, o Options) *wire {
	return &wire{address: address, dial: dialer(), most: o.MaxConcurrency}
}

// do sends m and has read read the answer. A connection that turns out to be
// closed is replaced where the app cannot have seen the request, or may see it
// twice.
func (w *wire) do(ctx context.Context, m *message, read func(*http.Response) ([]byte, error)) (*Answer, error) {
	if at, ok := ctx.Deadline(); ok && (m.until.IsZero() || at.Before(m.until)) {
		m.until = at
	}
	for {
		l, err := w.take(ctx, m)
		if err != nil {
			return nil, err
		}
		// It fails on a closed connection, and so does the write.
		_ = l.SetDeadline(m.until)
		stop := afterEnd(ctx, l.cut)
		answer, keep, err := l.exchange(m, read)
		if !stop() || !keep {
			l.Close()
		} else {
			w.put(l)
		}
		if err == nil || !l.used || ctx.Err() != nil || !errors.Is(err, errStale) {
			return answer, timely(err)
		}
	}
}

// afterEnd calls f when ctx ends, without a context of its own where ctx can
// do that; f must be quick.
func afterEnd(ctx context.Context, f func()) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	if a, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok {
		return a.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

// cut ends what is under way.
func (l *line) cut() { _ = l.SetDeadline(time.Unix(1, 0)) }

// timely gives the end of the time the name that contexts give it.
func timely(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.Wrap(context.DeadlineExceeded, "wait for the answer")
	}
	return err
}

// errStale marks the failure of a request that may be made again on another
// connection.
var errStale = errors.New("connection closed")

type staleError struct{ error }

func (staleError) Is(target error) bool { return target == errStale }

func (e staleError) Unwrap() error { return e.error }

// exchange writes the request and reads the answer. Keep tells whether the
// connection can be used again.
func (l *line) exchange(m *message, read func(*http.Response) ([]byte, error)) (_ *Answer, keep bool, err error) {
	l.out = m.append(l.out[:0])
	n, err := l.Write(l.out)
	if err != nil {
		if n == 0 || m.again {
			err = staleError{err}
		}
		return nil, false, err
	}
	l.limit.N = maxHeader
	if _, err := l.in.Peek(1); err != nil {
		if m.again && !errors.Is(err, os.ErrDeadlineExceeded) {
			err = staleError{err}
		}
		return nil, false, err
	}
	resp, err := l.answer(m.method)
	if err != nil {
		return nil, false, err
	}
	l.limit.N = math.MaxInt64
	body, err := read(resp)
	if err != nil {
		return nil, false, err
	}
	l.used = true
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, !resp.Close && l.in.Buffered() == 0, nil
}

// answer reads the head of the answer; those that only announce another are
// skipped.
func (l *line) answer(method string) (*http.Response, error) {
	var req *http.Request
	if method != http.MethodPost {
		req = &http.Request{Method: method}
	}
	for {
		resp, err := http.ReadResponse(l.in, req)
		switch {
		case err != nil && l.limit.N <= 0:
			return nil, fault.New(fault.Unavailable, "the answer's headers exceeded %d bytes", maxHeader)
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, fault.New(fault.Invalid, "it wants to switch protocols")
		case resp.StatusCode >= 200:
			return resp, nil
		}
	}
}

// take returns a connection for m: the idle one that was used last, or a new
// one.
func (w *wire) take(ctx context.Context, m *message) (*line, error) {
	for l := w.pop(); l != nil; l = w.pop() {
		// An end, or an answer that nobody asked for.
		if quiet(l) {
			return l, nil
		}
		l.Close()
	}
	return w.open(ctx, m.until)
}

func (w *wire) open(ctx context.Context, until time.Time) (*line, error) {
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	conn, err := w.dial(ctx, "tcp", w.address)
	if err != nil {
		return nil, err
	}
	l := &line{Conn: conn}
	l.limit.R = conn
	l.in = bufio.NewReader(&l.limit)
	return l, nil
}

func (w *wire) pop() *line {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.idle) - 1
	if n < 0 {
		return nil
	}
	l := w.idle[n]
	w.idle[n] = nil
	w.idle = w.idle[:n]
	return l
}

// put keeps a connection for the next request.
func (w *wire) put(l *line) {
	l.since = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.idle) >= w.most {
		l.Close()
		return
	}
	w.idle = append(w.idle, l)
	if w.sweep == nil {
		w.sweep = time.AfterFunc(idleTime, w.closeOld)
	}
}

// closeOld closes connections that nobody used for long, and comes back as long
// as there are others.
func (w *wire) closeOld() {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := 0
	for old < len(w.idle) && time.Since(w.idle[old].since) >= idleTime {
		w.idle[old].Close()
		old++
	}
	w.idle = append(w.idle[:0], w.idle[old:]...)
	if w.sweep = nil; len(w.idle) > 0 {
		w.sweep = time.AfterFunc(idleTime-time.Since(w.idle[0].since), w.closeOld)
	}
}

// close closes the idle connections.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.idle {
		l.Close()
	}
	w.idle = nil
	if w.sweep != nil {
		w.sweep.Stop()
		w.sweep = nil
	}
}
