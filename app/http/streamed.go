package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/penstock-io/penstock/fault"
	msg "github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/middleware"
)

// stream makes a call of a method through the pipeline. Bodies are streams both
// ways; the pipeline runs until the answer's body was read or is closed.
func (c *Channel) stream(ctx context.Context, r *msg.Request) (*msg.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	read, write := io.Pipe()
	s := &streaming{call: r, header: make(http.Header, 8), write: write, begun: make(chan struct{}), done: make(chan struct{})}
	req := c.base.WithContext(context.WithValue(ctx, streamingKey{}, s))
	req.Method, req.URL = r.Verb, c.method(r)
	req.RequestURI = req.URL.RequestURI()
	req.Header, req.ContentLength, req.Trailer = r.Header, r.Length, r.Trailer
	if req.Body = r.Body; r.Body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	go s.run(c.piped, req)
	<-s.begun
	if s.failed != nil {
		cancel()
		<-s.done
		return nil, s.failed
	}
	answer := &msg.Response{Status: s.status, Header: s.sent, Trailer: s.trailer, Body: read, Length: -1, Upgraded: s.upgraded}
	answer.OnClose(func() {
		cancel()
		<-s.done
	})
	return answer, nil
}

// method is where a method of the app is.
func (c *Channel) method(r *msg.Request) *url.URL {
	return &url.URL{
		Scheme: c.base.URL.Scheme, Host: c.address,
		Path: "/" + msg.Plain(r.Path), RawPath: "/" + r.Path, RawQuery: r.Query,
	}
}

type streamingKey struct{}

// streaming takes the answer of a call that goes through the pipeline.
type streaming struct {
	call   *msg.Request
	header http.Header
	write  *io.PipeWriter
	done   chan struct{} // closed when the pipeline has returned

	// What follows is read by others after begun was closed: there is an answer,
	// or failed says why there is none.
	begun    chan struct{}
	status   int
	sent     http.Header
	trailer  http.Header
	upgraded io.Writer
	failed   error
}

// run passes the request through the pipeline.
func (s *streaming) run(pipeline http.Handler, req *http.Request) {
	defer close(s.done)
	err := pipe(s, pipeline, req)
	_ = req.Body.Close() // nobody reads it any more
	switch {
	case err != nil && s.status == 0:
		s.failed = err
		close(s.begun)
	case s.status == 0 && s.failed == nil:
		s.WriteHeader(http.StatusOK)
	}
	_ = s.write.CloseWithError(err) // never fails; nil is the end
}

// pipe calls the pipeline; a panic of it is an error of this call.
func pipe(s *streaming, pipeline http.Handler, req *http.Request) (err error) {
	defer func() {
		switch p := recover(); {
		case p == nil:
		case s.failed != nil:
			err = s.failed
		default:
			err = fault.New(fault.Internal, "call app at %s through its pipeline: a middleware broke down: %v", req.URL.Path, p)
		}
	}()
	pipeline.ServeHTTP(s, req)
	return s.failed
}

// streamed is the end of the pipeline for such a call: the request as the
// middlewares left it goes to the app.
func (c *Channel) streamed(w http.ResponseWriter, r *http.Request, s *streaming) {
	if err := c.relay(w, r, s); err != nil {
		s.failed = err
		panic(http.ErrAbortHandler) // middlewares have nothing to do with that
	}
}

func (c *Channel) relay(w http.ResponseWriter, r *http.Request, s *streaming) error {
	path, err := msg.Path(strings.TrimPrefix(middleware.Path(r.URL), "/"))
	if err != nil {
		return err
	}
	one := *s.call
	one.Verb, one.Path, one.Query, one.Header, one.Body, one.Length = r.Method, path, r.URL.RawQuery, r.Header, r.Body, r.ContentLength
	answer, err := c.direct(r.Context(), &one)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	h := w.Header()
	for name, values := range answer.Header {
		if !isFraming(name) {
			h[name] = values
		}
	}
	if s.status == 0 { // no middleware has begun to answer
		s.trailer, s.upgraded = answer.Trailer, answer.Upgraded
	}
	w.WriteHeader(answer.Status)
	if _, err := io.Copy(w, answer.Body); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return fault.Wrap(err, "read answer of app at /%s", path)
	}
	return nil
}

// Header implements [http.ResponseWriter].
func (s *streaming) Header() http.Header { return s.header }

// WriteHeader implements [http.ResponseWriter]; informational answers are left
// out.
func (s *streaming) WriteHeader(status int) {
	if s.status != 0 || status < http.StatusOK && s.upgraded == nil {
		return
	}
	s.status, s.sent = status, s.header.Clone()
	for name := range s.sent {
		if isFraming(name) {
			delete(s.sent, name)
		}
	}
	close(s.begun)
}

// Write implements [http.ResponseWriter]. It waits until b was read.
func (s *streaming) Write(b []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.write.Write(b)
}

// Flush implements [http.Flusher]: everything goes on at once.
func (s *streaming) Flush() {}
