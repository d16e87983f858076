package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/penstock-io/penstock/api"
	apigrpc "github.com/penstock-io/penstock/api/grpc"
)

func want(tb testing.TB, err error, code codes.Code, word string) {
	tb.Helper()
	if st := status.Convert(err); st.Code() != code || !strings.Contains(st.Message(), word) {
		tb.Errorf("%v: %s; want %v with %q in it", st.Code(), st.Message(), code, word)
	}
}

// publish publishes data of that size.
func publish(ctx context.Context, c rtv1.DaprClient, topic string, size int) error {
	_, err := c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "bus", Topic: topic, Data: bytes.Repeat([]byte("x"), size)})
	return err
}

// services asks the server what it serves.
func services(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	s, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	got, err := s.Recv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range got.GetListServicesResponse().GetService() {
		names = append(names, n.GetName())
	}
	return names, nil
}

// No method is reached without the token: not those of other services, nor
// streams, nor reflection.
func TestToken(t *testing.T) {
	t.Parallel()
	i := open(t)
	conn := serve(t, i, apigrpc.Options{Tokens: []string{"", "one", "two"}}).conn(t)
	c := rtv1.NewDaprClient(conn)
	calls := map[string]func(context.Context) error{
		"publish": func(ctx context.Context) error { return publish(ctx, c, "t", 1) },
		"stream": func(ctx context.Context) error {
			s, err := c.SubscribeConfiguration(ctx, &rtv1.SubscribeConfigurationRequest{})
			must(t, err)
			_, err = s.Recv()
			return err
		},
		"reflection": func(ctx context.Context) error { _, err := services(ctx, conn); return err },
		"unknown": func(ctx context.Context) error {
			return conn.Invoke(ctx, "/other.Service/Method", new(emptypb.Empty), new(emptypb.Empty))
		},
	}
	for _, tokens := range [][]string{{}, {""}, {"One"}, {"one", "one"}, {"three"}} {
		ctx := t.Context()
		for _, token := range tokens {
			ctx = metadata.AppendToOutgoingContext(ctx, "dapr-api-token", token)
		}
		for name, call := range calls {
			if err := call(ctx); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s with tokens %q: %v", name, tokens, err)
			}
		}
	}
	for _, token := range []string{"one", "two"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-api-token", token)
		must(t, calls["publish"](ctx))
		must(t, calls["reflection"](ctx))
		want(t, calls["unknown"](ctx), codes.Unimplemented, "/other.Service/Method is not in this build of Penstock")
	}
	if n := len(i.broker.events(t)); n != 2 {
		t.Errorf("%d events published, want the 2 with a token", n)
	}
}

// What the Configuration forbids is not there.
func TestSurface(t *testing.T) {
	t.Parallel()
	i := open(t)
	i.surface.Denied = []api.Rule{{Name: "publish", Version: "v1.0", Protocol: "grpc"}}
	c := serve(t, i, apigrpc.Options{}).dial(t)
	want(t, publish(t.Context(), c, "t", 1), codes.Unimplemented, "spec.api of the Configuration forbids it")
	_, err := c.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	must(t, err)
}

func TestReflection(t *testing.T) {
	t.Parallel()
	names, err := services(t.Context(), serve(t, open(t), apigrpc.Options{}).conn(t))
	must(t, err)
	if !strings.Contains(strings.Join(names, " "), "dapr.proto.runtime.v1.Dapr") {
		t.Errorf("services: %v", names)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	c := serve(t, open(t), apigrpc.Options{MaxBody: 1000, ReadBuffer: 4 << 10}).dial(t)
	must(t, publish(t.Context(), c, "t", 900))
	want(t, publish(t.Context(), c, "t", 1001), codes.ResourceExhausted, "larger than max")
	small := metadata.AppendToOutgoingContext(t.Context(), "key", strings.Repeat("v", 4<<10))
	must(t, publish(small, c, "t", 1))
	large := metadata.AppendToOutgoingContext(t.Context(), "key", strings.Repeat("v", 16<<10))
	if err := publish(large, c, "t", 1); err == nil {
		t.Error("16 KiB of call metadata are taken")
	}
	want(t, publish(t.Context(), c, "secret", 1), codes.PermissionDenied, "not allowed") // the connection still works
}

// A call whose message does not come ends, and so does a connection that says
// nothing.
func TestArrival(t *testing.T) {
	t.Parallel()
	s := serve(t, open(t), apigrpc.Options{Arrival: 20 * time.Millisecond})
	desc := &grpc.StreamDesc{ClientStreams: true}
	silent, err := s.conn(t).NewStream(t.Context(), desc, rtv1.Dapr_PublishEvent_FullMethodName)
	must(t, err)
	if err := silent.RecvMsg(new(emptypb.Empty)); err == nil || t.Context().Err() != nil {
		t.Errorf("a call without its message: %v", err)
	}
	raw, err := net.Dial("tcp", s.address)
	must(t, err)
	defer raw.Close()
	must(t, raw.SetDeadline(time.Now().Add(time.Minute)))
	if _, err := io.Copy(io.Discard, raw); err != nil && errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a connection without a handshake: %v", err)
	}
}

// Calls under way finish; new ones are refused.
func TestStopWaits(t *testing.T) {
	t.Parallel()
	i := open(t)
	s := serve(t, i, apigrpc.Options{Drain: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	c := s.dial(t)
	go func() { failed <- publish(ctx, c, "hangs", 1) }()
	<-i.broker.inside
	s.stop()
	for publish(t.Context(), s.dial(t), "t", 1) == nil {
	}
	select {
	case err := <-s.done:
		t.Fatalf("stopped with a call under way: %v", err)
	default:
	}
	cancel()
	if err := <-failed; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	must(t, <-s.done)
}

// What is not done when the drain ends is cut off, and so is a connection that
// never says anything.
func TestStopCuts(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{false, true} {
		i := open(t)
		o := apigrpc.Options{Drain: 50 * time.Millisecond}
		if cut {
			c := make(chan struct{})
			close(c)
			o = apigrpc.Options{Drain: time.Hour, Cut: c}
		}
		s := serve(t, i, o)
		failed := make(chan error, 1)
		c := s.dial(t)
		go func() { failed <- publish(t.Context(), c, "hangs", 1) }()
		<-i.broker.inside
		s.stop()
		must(t, <-s.done)
		if err := <-failed; err == nil {
			t.Error("a call that hangs has succeeded")
		}
	}
}

func TestStopWithSilentConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, open(t), apigrpc.Options{Drain: time.Hour, Arrival: time.Hour})
	raw, err := net.Dial("tcp", s.address)
	must(t, err)
	defer raw.Close()
	must(t, publish(t.Context(), s.dial(t), "t", 1))
	s.stop()
	must(t, <-s.done)
}

// A listener that breaks ends the server with an error.
func TestListenerBreaks(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	if err := apigrpc.New(nil, apigrpc.Options{}).Run(t.Context(), l); err == nil {
		t.Error("no error")
	}
}

func TestAPILogging(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	i := open(t)
	i.surface.Log.Enabled = true
	s := serve(t, i, apigrpc.Options{Tokens: []string{"s3cret"}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	c := s.dial(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-api-token", "s3cret")
	must(t, publish(ctx, c, "t", 1))
	want(t, publish(ctx, c, "secret", 1), codes.PermissionDenied, "")
	want(t, publish(t.Context(), c, "t", 1), codes.Unauthenticated, "")
	s.stop()
	must(t, <-s.done)
	for _, word := range []string{
		`msg="gRPC API Called" method=/dapr.proto.runtime.v1.Dapr/PublishEvent code=OK duration=`, "code=PermissionDenied", "code=Unauthenticated", "grpc-go",
	} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("log has no %q:\n%s", word, log.String())
		}
	}
	if strings.Contains(log.String(), "s3cret") {
		t.Errorf("log has the token:\n%s", log.String())
	}
}
