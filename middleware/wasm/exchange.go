package wasm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"

	"github.com/tetratelabs/wazero/sys"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
)

const (
	maxBody    = 4 << 20  // kept or written by a guest
	maxHeaders = 64 << 10 // added by a guest

	bufferRequest  = 1
	bufferResponse = 2
)

// exchange is one request in one guest, with the answer to it.
type exchange struct {
	pool     *pool
	guest    *guest
	w        http.ResponseWriter
	r        *http.Request // as it goes on, a copy of the one that came
	features uint32
	added    int // bytes of headers

	took    bool   // the guest has read of the request's body
	kept    []byte // what it has read, if whoever comes next is to read it too
	newBody []byte // what it wrote in place of the body
	renewed bool

	responding bool        // the guest is asked about the answer
	header     http.Header // of the answer
	status     int         // of the answer; 0: none yet
	sent       bool        // the head of the answer is out
	body       []byte      // of the answer, unless it passes as it comes
	unread     []byte      // of body, by the guest
	replaced   bool        // the guest wrote body
	overflow   bool        // the answer did not fit into body
}

type exchangeKey struct{}

func newExchange(p *pool, g *guest, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{pool: p, guest: g, w: w, r: r.WithContext(r.Context()), features: p.features, header: w.Header().Clone()}
	x.r.Header = r.Header.Clone()
	return x
}

// trap is what ends a guest that does what it must not.
type trap struct {
	text   string
	status int
}

// Error implements error.
func (t *trap) Error() string { return t.text }

// serve asks the guest, whoever comes next, and the guest again.
func (x *exchange) serve(next http.Handler) {
	result, err := x.call(x.guest.request.Call)
	if err != nil {
		x.fail(err)
		return
	}
	if uint32(result[0]) == 0 {
		x.apply()
		x.send()
		return
	}
	x.settle()
	x.status, x.body, x.replaced = 0, nil, false // what the guest wrote makes room for the answer
	var w http.ResponseWriter = &held{x}
	if x.features&bufferResponse == 0 {
		x.apply()
		x.header = x.w.Header()
		w = &passing{x.w, x}
	}
	failed := uint64(1)
	defer func() { x.respond(result[0]>>32, failed) }() // it is told when next panics
	next.ServeHTTP(w, x.r)
	failed = 0
}

// respond asks the guest about the answer and sends what has not been sent.
func (x *exchange) respond(id, failed uint64) {
	x.responding, x.unread = true, x.body
	_, err := x.call(func(ctx context.Context, _ ...uint64) ([]uint64, error) {
		return x.guest.response.Call(ctx, id, failed)
	})
	switch {
	case err == nil && x.overflow:
		err = &trap{"the answer is longer than a guest may keep", http.StatusInternalServerError}
		fallthrough
	case err != nil:
		x.fail(err)
	case failed != 0:
		// the panic goes on
	case x.features&bufferResponse != 0:
		x.apply()
		x.send()
	case !x.sent && (x.status != 0 || x.replaced):
		x.send()
	}
}

// call runs a function of the guest within its time.
func (x *exchange) call(f func(context.Context, ...uint64) ([]uint64, error)) ([]uint64, error) {
	ctx, cancel := x.pool.limited(x.r.Context(), x, x.pool.o.Timeout)
	defer cancel()
	result, err := f(ctx)
	if err == nil {
		return result, nil
	}
	x.guest.failed = true
	if exit, ok := errors.AsType[*sys.ExitError](err); ok && exit.ExitCode() == sys.ExitCodeDeadlineExceeded {
		err = fault.New(fault.Timeout, "call guest: it takes longer than %v", x.pool.o.Timeout)
	}
	return nil, err
}

// fail answers for a guest that failed, unless the answer is on its way.
func (x *exchange) fail(err error) {
	x.pool.report(err)
	if x.sent {
		return
	}
	status := http.StatusInternalServerError
	if t, ok := errors.AsType[*trap](err); ok {
		status = t.status
	} else if fault.KindOf(err) == fault.Timeout {
		status = http.StatusGatewayTimeout
	}
	middleware.Respond(x.w, status, "")
}

// settle makes the request what the guest made of it.
func (x *exchange) settle() {
	r, body := x.r, x.r.Body
	switch {
	case x.renewed:
		r.ContentLength, r.GetBody = int64(len(x.newBody)), nil
		r.Header.Del("Content-Length")
		r.Body = struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(x.newBody), orNone(body)}
	case len(x.kept) > 0:
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(x.kept), body), body}
	}
	if x.took && !x.renewed && x.features&bufferRequest == 0 {
		r.ContentLength, r.GetBody = -1, nil
		r.Header.Del("Content-Length")
	}
}

func orNone(body io.ReadCloser) io.ReadCloser {
	if body == nil {
		return http.NoBody
	}
	return body
}

// apply makes the header of the answer the one that the guest knows.
func (x *exchange) apply() {
	h := x.w.Header()
	clear(h)
	maps.Copy(h, x.header)
}

// send sends the answer that is held here.
func (x *exchange) send() {
	if x.replaced {
		x.w.Header().Del("Content-Length")
	}
	if x.status == 0 {
		x.status = http.StatusOK
	}
	x.sent = true
	x.w.WriteHeader(x.status)
	_, _ = x.w.Write(x.body) // there is nobody else to tell
}

// passing notes what passes.
type passing struct {
	http.ResponseWriter
	x *exchange
}

// WriteHeader implements [http.ResponseWriter].
func (p *passing) WriteHeader(status int) {
	if (status >= http.StatusOK || status == http.StatusSwitchingProtocols) && !p.x.sent {
		p.x.status, p.x.sent = status, true
	}
	p.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (p *passing) Write(b []byte) (int, error) {
	if !p.x.sent {
		p.WriteHeader(http.StatusOK)
	}
	return p.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (p *passing) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// held keeps an answer for the guest.
type held struct{ x *exchange }

// Header implements [http.ResponseWriter].
func (h *held) Header() http.Header { return h.x.header }

// WriteHeader implements [http.ResponseWriter].
func (h *held) WriteHeader(status int) {
	if status >= http.StatusOK && h.x.status == 0 {
		h.x.status = status
	}
}

// Write implements [http.ResponseWriter].
func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	if len(h.x.body)+len(b) > maxBody {
		h.x.overflow = true
		return 0, fault.New(fault.Exhausted, "keep answer: a guest wants it, and it has more than %d bytes", maxBody)
	}
	h.x.body = append(h.x.body, b...)
	return len(b), nil
}

// FlushError does nothing: the guest has not seen the answer yet.
func (h *held) FlushError() error { return nil }
