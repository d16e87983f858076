package peer

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/access"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Direct calls are those between two Penstocks of an app that speaks HTTP: HTTP/1.1
// on connections of their own at the same port, so that a body passes without being
// packed into messages. The protocol of everybody else is what the first call takes;
// its trailer tells that there is this way too.
const (
	// directKey is that trailer.
	directKey = "penstock-direct"
	// statusHeader is 0 when the app answered, else the gRPC code of the error whose
	// text is the body. Only a sidecar sets it.
	statusHeader = "Penstock-Status"
)

type arrivalKey struct{}

// DirectContext tells calls on a connection whose they are. It is what a server of
// direct calls has as ConnContext.
func DirectContext(ctx context.Context, c net.Conn) context.Context {
	a, ok := c.(*arrival)
	if !ok {
		return ctx
	}
	ctx = context.WithValue(ctx, arrivalKey{}, a)
	if a.info != nil {
		ctx = identity.WithProof(ctx, a.info)
	}
	return ctx
}

// serveDirect takes a direct call.
func (s *Server) serveDirect(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok && a.info != nil && time.Since(a.since) > maxAge {
		w.Header().Set("Connection", "close")
	}
	if r.RequestURI == aliveURI {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer, upgrade, err := s.direct(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	defer answer.Body.Close()
	if answer.RPC != nil { // nobody was told that there is this way
		refuse(w, status.Error(codes.Unimplemented, "direct calls are those of apps that speak HTTP"))
		return
	}
	answer.Header[statusHeader] = []string{"0"}
	w.Header()["Date"] = nil // the app's is to arrive, or none
	if answer.Upgraded == nil {
		message.Relay(w, answer)
	} else if err := message.Tunnel(w, answer, upgrade); err != nil {
		refuse(w, statusOf(ctx, err))
	}
}

func (s *Server) direct(w http.ResponseWriter, r *http.Request) (answer *message.Response, upgrade string, err error) {
	defer s.recovered(&err)
	path, err := message.Path(r.URL.EscapedPath())
	if err != nil {
		return nil, "", statusOf(r.Context(), err)
	}
	m, received := message.Receive(w, r, path)
	defer received()
	if answer, err = s.call(r.Context(), m); err != nil {
		return nil, "", statusOf(r.Context(), err)
	}
	return answer, m.Upgrade, nil
}

// refuse answers a call that did not get to the app, or got no answer of it.
func refuse(w http.ResponseWriter, err error) {
	said := status.Convert(err)
	h := w.Header()
	h.Set(statusHeader, strconv.Itoa(int(said.Code())))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(message.HTTPStatus(said.Code()))
	_, _ = io.WriteString(w, said.Message()) // the caller may be gone
}

// call checks who calls what, and calls the app.
func (s *Server) call(ctx context.Context, r *message.Request) (*message.Response, error) {
	caller, proven := identity.Caller(ctx)
	if err := s.o.Access.Check(access.Call{Caller: caller, Path: r.Path, Verb: r.Verb}); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // nothing is read from it
		}
		return nil, err
	}
	if proven { // whatever the other sidecar wrote there
		r.Header[message.CallerID], r.Header[message.CallerNamespace] = []string{caller.App}, []string{caller.Namespace}
	}
	ctx, span := s.begin(ctx, trace.FromHeader(r.Header))
	span.Context().Header(r.Header)
	from := cmp.Or(strings.Join(r.Header[message.CallerID], ","), nobody)
	s.o.Metrics.CallReceived(from)
	answer, err := s.o.App.Invoke(ctx, r)
	invoke.EndCall(span, answer, err, http.StatusInternalServerError)
	s.o.Metrics.AnswerSent(from, invoke.StatusOf(answer))
	return answer, err
}

// nobody is who calls without saying who it is, in Dapr's word.
const nobody = "unknown"

// begin begins the span of a call of the app.
func (s *Server) begin(ctx context.Context, from trace.Context) (context.Context, trace.Span) {
	ctx, span := s.o.Tracer.Start(ctx, trace.Begin{Kind: trace.Server, Group: "invoke ", Name: s.o.AppID, From: from, Root: true})
	span.Set(trace.AppID, s.o.AppID)
	return ctx, span
}
