package http

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
)

// pass makes a call through the pipeline. What the middlewares read and write is
// the request and the answer, both in memory and within the limit of a body.
func (c *Channel) pass(ctx context.Context, r *Request) (*Answer, error) {
	shared, err := c.url(r.Path)
	if err != nil {
		return nil, err
	}
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	p := &passing{limit: c.o.MaxBody, header: make(http.Header, 8)}
	req := c.base.WithContext(context.WithValue(ctx, passingKey{}, p))
	u := *shared
	req.Method, req.URL, req.RequestURI = cmp.Or(r.Method, http.MethodPost), &u, u.RequestURI()
	req.Header = c.header(r)
	req.Body = http.NoBody
	if len(r.Body) > 0 {
		setBody(req, r.Body)
	}
	c.piped.ServeHTTP(p, req)
	switch {
	case p.failed != nil:
		return nil, p.failed
	case p.over:
		return nil, fault.Wrap(c.tooLarge(), "call app at %s", r.Path)
	}
	return &Answer{Status: cmp.Or(p.status, http.StatusOK), Header: p.header, Body: p.body}, nil
}

// passed is the end of the pipeline. Wherever the middlewares have sent the
// request, it goes to the app.
func (c *Channel) passed(w http.ResponseWriter, r *http.Request) {
	if s, known := r.Context().Value(streamingKey{}).(*streaming); known {
		c.streamed(w, r, s)
		return
	}
	p, known := r.Context().Value(passingKey{}).(*passing)
	if !known {
		middleware.Respond(w, http.StatusInternalServerError, "")
		return
	}
	answer, err := c.last(r)
	if err != nil {
		p.failed = err
		return
	}
	h := w.Header()
	for name, values := range answer.Header {
		if !isFraming(name) {
			h[name] = values
		}
	}
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body) // what is too long is noted by the writer
}

// last makes the call as the middlewares left it.
func (c *Channel) last(r *http.Request) (*Answer, error) {
	path := middleware.Path(r.URL)
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, c.o.MaxBody+1))
	switch {
	case err != nil:
		return nil, fault.Wrap(err, "read the body for %.200s", path)
	case int64(len(body)) > c.o.MaxBody:
		return nil, fault.New(fault.Invalid, "read the body for %.200s: middlewares made it longer than %d bytes", path, c.o.MaxBody)
	}
	if _, err := url.ParseRequestURI(path); err != nil {
		return nil, fault.New(fault.Invalid, "call app at %.200q: not a path", path)
	}
	return c.call(r.Context(), &Request{Method: r.Method, Path: path, Header: r.Header, Body: body})
}

type passingKey struct{}

// passing takes the answer of a call that goes through the pipeline.
type passing struct {
	header http.Header
	status int
	body   []byte
	limit  int64
	over   bool  // the answer is longer than the limit
	failed error // there is no answer
}

// Header implements [http.ResponseWriter].
func (p *passing) Header() http.Header { return p.header }

// WriteHeader implements [http.ResponseWriter]; informational answers are left
// out.
func (p *passing) WriteHeader(status int) {
	if p.status == 0 && status >= http.StatusOK {
		p.status = status
	}
}

var errTooLong = errors.New("the answer is too long")

// Write implements [http.ResponseWriter].
func (p *passing) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	if int64(len(p.body))+int64(len(b)) > p.limit {
		p.over = true
		return 0, errTooLong
	}
	p.body = append(p.body, b...)
	return len(b), nil
}

// Flush implements [http.Flusher]: there is nothing to flush to.
func (p *passing) Flush() {}
