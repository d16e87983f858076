package peer_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/penstock-io/penstock/invoke/message"
)

// stock plays a sidecar of Dapr's that is called.
type stock struct {
	internalv1.UnimplementedServiceInvocationServer
	stream func(internalv1.ServiceInvocation_CallLocalStreamServer) error // nil: too old for it
	unary  func(*internalv1.InternalInvokeRequest) (*internalv1.InternalInvokeResponse, error)
}

// CallLocal implements ServiceInvocation.
func (s *stock) CallLocal(_ context.Context, in *internalv1.InternalInvokeRequest) (*internalv1.InternalInvokeResponse, error) {
	return s.unary(in)
}

// CallLocalStream implements ServiceInvocation.
func (s *stock) CallLocalStream(ss internalv1.ServiceInvocation_CallLocalStreamServer) error {
	if s.stream == nil {
		return status.Error(codes.Unimplemented, "unknown method CallLocalStream")
	}
	return s.stream(ss)
}

func (s *stock) listen(t *testing.T, o ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(o...)
	internalv1.RegisterServiceInvocationServer(srv, s)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l) // it ends with Stop
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-ended
	})
	return l.Addr().String()
}

func list(values ...string) *internalv1.ListStringValue {
	return &internalv1.ListStringValue{Values: values}
}

func TestAStockSidecarIsCalledAsByItsKind(t *testing.T) {
	t.Parallel()
	s := &stock{stream: func(ss internalv1.ServiceInvocation_CallLocalStreamServer) error {
		first, err := ss.Recv()
		if err != nil {
			return err
		}
		r := first.GetRequest()
		m := r.GetMessage()
		// The path is in plain form: stock sidecars decide on access by it.
		if m.GetMethod() != "a b/c" || m.GetHttpExtension().GetVerb() != commonv1.HTTPExtension_PUT || m.GetHttpExtension().GetQuerystring() != "q=%20" ||
			m.GetContentType() != "text/plain" || len(m.GetData().GetValue()) > 0 || r.GetVer() != internalv1.APIVersion_V1 {
			t.Errorf("%v", r)
		}
		if diff := cmp.Diff([]string{"there"}, r.GetMetadata()["destination-app-id"].GetValues()); diff != "" {
			t.Error(diff)
		}
		if r.GetMetadata()["X-A"].GetValues()[0] != "1" || r.GetMetadata()["Dapr-Api-Token"] != nil {
			t.Errorf("%v", r.GetMetadata())
		}
		body := drain(t, ss, first)
		if string(body) != strings.Repeat("x", 100_000) {
			t.Errorf("%d bytes", len(body))
		}
		err = ss.Send(&internalv1.InternalInvokeResponseStream{Response: &internalv1.InternalInvokeResponse{
			Status: &internalv1.Status{Code: 201}, Headers: map[string]*internalv1.ListStringValue{"X-R": list("2"), "Connection": list("close"), "Content-Length": list("99")},
			Message: &commonv1.InvokeResponse{ContentType: "text/html"},
		}})
		for i, piece := range []string{"one", "two"} {
			if err == nil {
				err = ss.Send(&internalv1.InternalInvokeResponseStream{Payload: &commonv1.StreamPayload{Data: []byte(piece), Seq: uint64(i)}})
			}
		}
		return err
	}}
	answer, err := client(t).Call(t.Context(), s.listen(t), there, &message.Request{
		Verb: "PUT", Path: "a%20b/c", Query: "q=%20", Header: http.Header{"X-A": {"1"}, "Content-Type": {"text/plain"}},
		Length: 100_000, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 100_000))),
	})
	if err != nil {
		t.Fatal(err)
	}
	if body := all(t, answer.Body); body != "onetwo" || answer.Status != 201 {
		t.Errorf("%d %q", answer.Status, body)
	}
	if diff := cmp.Diff(http.Header{"X-R": {"2"}, "Content-Type": {"text/html"}}, answer.Header); diff != "" {
		t.Error(diff)
	}
}

// drain reads the body of a request that began with first.
func drain(t *testing.T, ss internalv1.ServiceInvocation_CallLocalStreamServer, first *internalv1.InternalInvokeRequestStream) (body []byte) {
	t.Helper()
	for m, seq := first, uint64(0); ; {
		if p := m.GetPayload(); p != nil {
			if p.Seq != seq {
				t.Errorf("piece %d, want %d", p.Seq, seq)
			}
			seq++
			body = append(body, p.GetData()...)
		}
		var err error
		if m, err = ss.Recv(); err != nil {
			return body
		}
		if m.GetRequest() != nil {
			t.Error("a request in a later message")
		}
	}
}

func TestASidecarTooOldForStreams(t *testing.T) {
	t.Parallel()
	calls := 0
	s := &stock{unary: func(in *internalv1.InternalInvokeRequest) (*internalv1.InternalInvokeResponse, error) {
		calls++
		return &internalv1.InternalInvokeResponse{
			Status: &internalv1.Status{Code: 200}, Message: &commonv1.InvokeResponse{ContentType: "text/plain", Data: &anypb.Any{Value: in.GetMessage().GetData().GetValue()}},
		}, nil
	}}
	at, c := s.listen(t), client(t)
	for _, body := range []string{"small", strings.Repeat("x", 100_000)} { // the second time it is known
		answer, err := c.Call(t.Context(), at, there, &message.Request{
			Verb: "POST", Path: "x", Header: http.Header{}, Length: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := all(t, answer.Body); got != body {
			t.Errorf("%d bytes came back", len(got))
		}
	}
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
	_, err := client(t).Call(t.Context(), at, there, &message.Request{
		Verb: "POST", Path: "x", Header: http.Header{}, Length: 100_000, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 100_000))),
	})
	if err == nil || !strings.Contains(err.Error(), "upgrade that sidecar") {
		t.Errorf("%v", err)
	}
}

// dial is a stock sidecar that calls.
func dial(t *testing.T, at string) internalv1.ServiceInvocationClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return internalv1.NewServiceInvocationClient(cc)
}

func request(method string) *internalv1.InternalInvokeRequest {
	return &internalv1.InternalInvokeRequest{
		Ver: internalv1.APIVersion_V1,
		Metadata: map[string]*internalv1.ListStringValue{
			"X-A": list("1"), "Dapr-Api-Token": list("secret"), "Connection": list("X-Gone"), "X-Gone": list("1"), "Content-Length": list("8"),
			"destination-app-id": list("here"), "dapr-caller-app-id": list("stock"),
		},
		Message: &commonv1.InvokeRequest{
			Method: method, ContentType: "application/json",
			HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST, Querystring: "a=b"},
		},
	}
}

func TestAStockSidecarCalls(t *testing.T) {
	t.Parallel()
	at := listen(t, appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		body, err := io.ReadAll(r.Body)
		if r.Verb != "POST" || r.Path != "a%20b" || r.Query != "a=b" || r.Length != 8 || string(body) != "the body" {
			t.Errorf("%+v %q", r, body)
		}
		if diff := cmp.Diff(http.Header{"X-A": {"1"}, "Dapr-Caller-App-Id": {"stock"}, "Content-Type": {"application/json"}}, r.Header); diff != "" {
			t.Error(diff)
		}
		answer := text(418, strings.Repeat("y", 100_000))
		answer.Header = http.Header{"X-R": {"2"}, "Content-Type": {"text/y"}}
		return answer, err
	}), 0)
	c := dial(t, at)
	in := request("a b")
	in.Message.Data = &anypb.Any{Value: []byte("the body")}
	out, err := c.CallLocal(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if out.GetStatus().GetCode() != 418 || len(out.GetMessage().GetData().GetValue()) != 100_000 || out.GetMessage().GetContentType() != "text/y" ||
		out.GetHeaders()["X-R"].GetValues()[0] != "2" {
		t.Errorf("%v", out)
	}
	s, err := c.CallLocalStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*internalv1.InternalInvokeRequestStream{
		{Request: request("a b"), Payload: &commonv1.StreamPayload{Data: []byte("the "), Seq: 0}},
		{Payload: &commonv1.StreamPayload{Data: []byte("body"), Seq: 1}},
	} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if size := receive(t, s); size != 100_000 {
		t.Errorf("%d bytes", size)
	}
}

// receive reads an answer of 418 and returns the size of its body.
func receive(t *testing.T, s internalv1.ServiceInvocation_CallLocalStreamClient) (size int) {
	t.Helper()
	seq := uint64(0)
	for first := true; ; first = false {
		m, err := s.Recv()
		if err == io.EOF {
			return size
		}
		if err != nil {
			t.Fatal(err)
		}
		if first != (m.GetResponse() != nil) || first && m.GetResponse().GetStatus().GetCode() != 418 {
			t.Errorf("%v", m.GetResponse())
		}
		if p := m.GetPayload(); p != nil {
			if p.Seq != seq {
				t.Errorf("piece %d, want %d", p.Seq, seq)
			}
			seq++
			size += len(p.GetData())
		}
	}
}

func TestWhatASidecarMayNotSend(t *testing.T) {
	t.Parallel()
	at := listen(t, appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		_, err := io.ReadAll(r.Body)
		return text(200, ""), err
	}), 0)
	payload := func(seq uint64) *commonv1.StreamPayload {
		return &commonv1.StreamPayload{Data: []byte("x"), Seq: seq}
	}
	changed := func(f func(*internalv1.InternalInvokeRequest)) *internalv1.InternalInvokeRequest {
		r := request("x")
		delete(r.Metadata, "Content-Length")
		f(r)
		return r
	}
	asIs := changed(func(*internalv1.InternalInvokeRequest) {})
	rows := []struct {
		name     string
		md       metadata.MD
		messages []*internalv1.InternalInvokeRequestStream
	}{
		{"no request", nil, []*internalv1.InternalInvokeRequestStream{{Payload: payload(0)}}},
		{"a path that climbs", nil, []*internalv1.InternalInvokeRequestStream{{Request: request("a/../b")}}},
		{"a query in the path", nil, []*internalv1.InternalInvokeRequestStream{{Request: request("a?b")}}},
		{"two paths", metadata.Pairs("penstock-path", "b"), []*internalv1.InternalInvokeRequestStream{{Request: request("a")}}},
		{"a second line in the query", nil, []*internalv1.InternalInvokeRequestStream{{Request: changed(func(r *internalv1.InternalInvokeRequest) {
			r.Message.HttpExtension.Querystring = "a\r\nX-Evil: 1"
		})}}},
		{"a length that is none", nil, []*internalv1.InternalInvokeRequestStream{{Request: changed(func(r *internalv1.InternalInvokeRequest) {
			r.Metadata["content-length"] = list("-1")
		})}}},
		{"a piece out of order", nil, []*internalv1.InternalInvokeRequestStream{{Request: asIs, Payload: payload(0)}, {Payload: payload(2)}}},
		{"a second beginning", nil, []*internalv1.InternalInvokeRequestStream{{Request: asIs, Payload: payload(0)}, {Request: asIs}}},
	}
	c := dial(t, at)
	for _, row := range rows {
		s, err := c.CallLocalStream(metadata.NewOutgoingContext(t.Context(), row.md))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range row.messages {
			_ = s.Send(m) // Recv says when it is refused
		}
		_ = s.CloseSend()
		if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
