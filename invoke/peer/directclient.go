package peer

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

// The bounds of direct calls of one app at an address.
const (
	maxDirect  = 1000 // connections, which is as many calls
	idleDirect = 256  // of them without a call, for a minute at most
	idleTime   = time.Minute
	// maxRefusal bounds the text of an error, in bytes.
	maxRefusal = 4 << 10
)

// MaxHead bounds the headers of a call and of an answer, in bytes, also where they are
// messages; gRPC's own bound is 16 times that. It is more than a sidecar takes of its
// app, since it adds some.
const MaxHead = 1 << 20

// A peer with calls under way that was silent for askPeer must answer to a request
// of aliveURI within answerPeer, else the calls end.
const (
	askPeer    = 10 * time.Second
	answerPeer = 5 * time.Second
	aliveURI   = "/.penstock/alive"
)

// way is the direct way to another Penstock.
type way struct {
	address string
	creds   credentials.TransportCredentials // nil: plain text
	http    *http.Transport
	calls   atomic.Int64 // under way
	lost    atomic.Bool  // the other side does not speak it any more

	ask, answer time.Duration // askPeer and answerPeer

	looking sync.WaitGroup // for the one that is asked for, or runs

	mu    sync.Mutex // guards what follows
	conns map[*outlet]struct{}
	watch *time.Timer        // nil: nobody waits
	end   context.CancelFunc // of asking; nil: nobody asked yet
	down  bool
}

func newWay(address string, creds credentials.TransportCredentials) *way {
	w := &way{address: address, creds: creds, conns: map[*outlet]struct{}{}, ask: askPeer, answer: answerPeer}
	w.http = &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return w.dial(ctx) },
		MaxConnsPerHost:    maxDirect,
		MaxIdleConns:       idleDirect,
		WriteBufferSize:    message.WriteBuffer,
		DisableCompression: true, MaxIdleConnsPerHost: idleDirect, IdleConnTimeout: idleTime, MaxResponseHeaderBytes: MaxHead,
	}
	return w
}

// unopened is the error of a connection on which nothing was sent.
type unopened struct{ error }

// Unwrap returns the cause.
func (u unopened) Unwrap() error { return u.error }

// dial opens a connection.
func (w *way) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, minConnect)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", w.address)
	if err != nil {
		return nil, unopened{err}
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, err := w.greet(ctx, raw)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close() // nothing was sent
		return nil, unopened{err}
	}
	return w.keep(c)
}

// greet agrees with the other side on what is spoken.
func (w *way) greet(ctx context.Context, raw net.Conn) (net.Conn, error) {
	c := raw
	if w.creds != nil {
		secure, _, err := w.creds.ClientHandshake(ctx, w.address, raw)
		if err != nil {
			return nil, err
		}
		c = secure
	}
	if _, err := io.WriteString(c, hello); err != nil {
		return nil, err
	}
	answer := make([]byte, len(welcome))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != welcome {
		w.lost.Store(true)
		return nil, errors.Join(errLost, err)
	}
	return c, nil
}

// outlet is an open connection.
type outlet struct {
	net.Conn
	way *way
}

func (w *way) keep(c net.Conn) (net.Conn, error) {
	o := &outlet{c, w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, unopened{errors.Join(net.ErrClosed, c.Close())}
	}
	w.conns[o] = struct{}{}
	return o, nil
}

// Close implements [net.Conn].
func (o *outlet) Close() error {
	o.way.mu.Lock()
	delete(o.way.conns, o)
	o.way.mu.Unlock()
	return o.Conn.Close()
}

// cut ends every call that is under way.
func (w *way) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for o := range w.conns {
		_ = o.Conn.Close() // whoever reads it hears of it
	}
}

// close ends the way.
func (w *way) close() {
	w.mu.Lock()
	w.down = true
	if w.watch != nil && w.watch.Stop() {
		w.looking.Done()
	}
	if w.end != nil {
		w.end()
	}
	w.mu.Unlock()
	w.cut()
	w.http.CloseIdleConnections()
	w.looking.Wait()
}

// errLost is the error of a call of which nothing was sent, since the other side does
// not take direct calls any more. The body of the request is as it was.
var errLost = errors.New("the other side does not take direct calls any more")

// call makes a call. It closes r's body, unless the error is errLost.
func (w *way) call(ctx context.Context, r *message.Request) (*message.Response, error) {
	if err := message.Hold(r); err != nil {
		return nil, err
	}
	w.begin()
	one := *r
	var in *upstream // of a body that is not in memory
	held, small := r.Body.(message.Held)
	if r.Body != nil && r.Length != 0 && !small {
		in = &upstream{ReadCloser: r.Body}
		one.Body = in
	}
	answer, err := message.RoundTrip(ctx, w.http, w.method(r), &one)
	if err == nil {
		answer, err = judge(ctx, answer)
	}
	if err != nil {
		w.calls.Add(-1)
		if w.lost.Load() && !in.read() && isUnopened(err) {
			if small {
				r.Body, _ = held.Again() // it never fails
			}
			return nil, errLost
		}
		in.end()
		return nil, in.explain(ctx, err)
	}
	answer.OnClose(func() {
		w.calls.Add(-1)
		in.end()
	})
	return answer, nil
}

// method is where a method is called; the path arrives byte for byte.
func (w *way) method(r *message.Request) *url.URL {
	return &url.URL{Scheme: "http", Host: w.address, Path: "/" + message.Plain(r.Path), RawPath: "/" + r.Path, RawQuery: r.Query}
}

func isUnopened(err error) bool {
	_, ok := errors.AsType[unopened](err)
	return ok
}

// judge tells the answer of an app from that of its sidecar.
func judge(ctx context.Context, answer *message.Response) (*message.Response, error) {
	code, err := strconv.ParseUint(answer.Header.Get(statusHeader), 10, 8)
	delete(answer.Header, statusHeader)
	if err == nil && code == 0 {
		answer.Body = &downstream{answer.Body, ctx}
		return answer, nil
	}
	defer answer.Body.Close()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read answer: status %d of somebody who is no sidecar", answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxRefusal))
	if err != nil {
		return nil, err
	}
	return nil, failed(ctx, status.Error(codes.Code(code), string(text)))
}

// upstream is the body of a request. It remembers that it broke. The nil one is that
// of a request whose body is in memory.
type upstream struct {
	io.ReadCloser
	first *upstream // that this one repeats; nil: none
	broke atomic.Pointer[error]
	begun atomic.Bool
}

// Read implements [io.Reader].
func (u *upstream) Read(p []byte) (int, error) {
	if !u.begun.Load() { // to be written by one processor again and again costs
		u.begun.Store(true)
	}
	n, err := u.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		cmp.Or(u.first, u).broke.Store(&err)
	}
	return n, err
}

// Close implements [io.Closer]. A body of which nothing was read may still be sent
// another way.
func (u *upstream) Close() error {
	if !u.begun.Load() {
		return nil
	}
	return u.ReadCloser.Close()
}

// read tells whether any of it was read.
func (u *upstream) read() bool { return u != nil && u.begun.Load() }

// end closes the body.
func (u *upstream) end() {
	if u != nil {
		_ = u.ReadCloser.Close() // nothing is read from it any more
	}
}

// Again returns the body from its beginning, where that can be had. It is asked for
// when the other side had closed the connection before anything was sent.
func (u *upstream) Again() (io.ReadCloser, error) {
	if a, ok := u.ReadCloser.(interface{ Again() (io.ReadCloser, error) }); ok {
		body, err := a.Again()
		return &upstream{ReadCloser: body, first: cmp.Or(u.first, u)}, err
	}
	if !u.begun.Load() {
		return u, nil
	}
	return nil, fault.New(fault.Unavailable, "send request body once more: it was read")
}

// broken is what was wrong with the body; nil: nothing.
func (u *upstream) broken() *error {
	if u == nil {
		return nil
	}
	return u.broke.Load()
}

// explain makes the error of a call that got no answer: what is wrong with the way
// has the code that other calls have for it.
func (u *upstream) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Wrap(context.Cause(ctx), "wait for the answer")
	}
	if broke := u.broken(); broke != nil {
		return fault.Wrap(*broke, "read request body")
	}
	if _, known := errors.AsType[statusError](err); known {
		return err
	}
	wrong := failed(ctx, status.Error(codes.Unavailable, err.Error()))
	if isUnopened(err) {
		return message.Unsent(wrong)
	}
	return wrong
}

// downstream is the body of an answer, whose errors are those of a call.
type downstream struct {
	io.ReadCloser
	ctx context.Context
}

// Read implements [io.Reader].
func (d *downstream) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = failed(d.ctx, status.Error(codes.Unavailable, err.Error()))
	}
	return n, err
}

// begin counts a call, and sees to it that somebody looks after it.
func (w *way) begin() {
	if w.calls.Add(1) > 1 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.later()
}

// later makes look run in a while; the caller holds mu.
func (w *way) later() {
	if w.watch == nil && !w.down {
		w.looking.Add(1)
		w.watch = time.AfterFunc(w.ask, w.look)
	}
}

// look asks the other side whether it is there, as long as calls wait for it.
func (w *way) look() {
	defer w.looking.Done()
	if w.calls.Load() > 0 && !w.alive() {
		w.cut()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch = nil
	if w.calls.Load() > 0 {
		w.later()
	}
}

// alive asks once. The end of the way ends that.
func (w *way) alive() bool {
	req, err := http.NewRequest(http.MethodGet, "http://"+w.address+aliveURI, http.NoBody)
	if err != nil { // cannot be: the address is one
		return false
	}
	ctx, cancel := context.WithTimeout(req.Context(), w.answer)
	defer cancel()
	w.mu.Lock()
	w.end = cancel
	down := w.down
	w.mu.Unlock()
	if down {
		return false
	}
	resp, err := w.http.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // there is none
	return resp.StatusCode == http.StatusNoContent
}
