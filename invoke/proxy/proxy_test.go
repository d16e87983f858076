package proxy_test

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/proxy"
)

func TestAUnaryCallPassesWithWhatGoesWithIt(t *testing.T) {
	t.Parallel()
	seen := make(chan metadata.MD, 2)
	c := through(t, &service{unary: func(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		seen <- md
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-head", "h", "x-bin", "\x00\xff", "dapr-api-token", "secret"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "t1", "x-tail", "t2"))
		return &pb.SimpleResponse{Payload: in.GetPayload(), Username: in.GetResponseStatus().GetMessage()}, nil
	}})
	for name, options := range map[string][]grpc.CallOption{"plain": nil, "gzip": {grpc.UseCompressor("gzip")}, "proto": {grpc.CallContentSubtype("proto")}} {
		ctx := metadata.AppendToOutgoingContext(limited(t), "x-mine", "1", "x-mine", "2", "y-bin", "\x01\xfe", "dapr-api-token", "secret",
			"dapr-app-id", "other", "proxy-authorization", "x", "traceparent", "00-a")
		var header, trailer metadata.MD
		out, err := c.UnaryCall(ctx, &pb.SimpleRequest{
			Payload: &pb.Payload{Body: []byte("body")}, ResponseStatus: &pb.EchoStatus{Message: "grüße"},
		}, append(options, grpc.Header(&header), grpc.Trailer(&trailer))...)
		if err != nil || string(out.GetPayload().GetBody()) != "body" || out.GetUsername() != "grüße" {
			t.Fatalf("%s: %v, %v", name, out, err)
		}
		md := <-seen
		for _, key := range []string{"dapr-api-token", "dapr-app-id", "proxy-authorization"} {
			if v := md.Get(key); v != nil {
				t.Errorf("%s: %s came through: %q", name, key, v)
			}
		}
		for key, want := range map[string][]string{"x-mine": {"1", "2"}, "y-bin": {"\x01\xfe"}, "traceparent": {"00-a"}} {
			if diff := cmp.Diff(want, md[key]); diff != "" {
				t.Errorf("%s: %s: %s", name, key, diff)
			}
		}
		if len(md.Get("content-type")) != 1 || name == "plain" && md.Get("content-type")[0] != "application/grpc" {
			t.Errorf("%s: content type %q", name, md.Get("content-type"))
		}
		if diff := cmp.Diff([][]string{{"h"}, {"\x00\xff"}, nil, {"t1", "t2"}},
			[][]string{header["x-head"], header["x-bin"], header["dapr-api-token"], trailer["x-tail"]}); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A status arrives with its details and trailers, whether or not anything was
// sent before it.
func TestAStatusPassesWithItsDetails(t *testing.T) {
	t.Parallel()
	fail := func() error {
		s, err := status.New(codes.FailedPrecondition, "nö").WithDetails(&errdetails.ErrorInfo{Reason: "R", Metadata: map[string]string{"a": "b"}})
		if err != nil {
			t.Error(err)
		}
		return s.Err()
	}
	c := through(t, &service{
		unary: func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "t"))
			return nil, fail()
		},
		output: func(_ *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
			s.SetTrailer(metadata.Pairs("x-tail", "t"))
			if err := s.Send(&pb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
			return fail()
		},
	})
	check := func(err error, trailer metadata.MD) {
		t.Helper()
		s := status.Convert(err)
		if s.Code() != codes.FailedPrecondition || len(s.Details()) != 1 || s.Details()[0].(*errdetails.ErrorInfo).GetReason() != "R" || !slices.Equal(trailer["x-tail"], []string{"t"}) {
			t.Fatalf("%v %v %v", err, s.Details(), trailer)
		}
	}
	for range 50 { // the status races with the end of the call
		var trailer metadata.MD
		_, err := c.UnaryCall(limited(t), &pb.SimpleRequest{}, grpc.Trailer(&trailer))
		check(err, trailer)
	}
	s, err := c.StreamingOutputCall(limited(t), &pb.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	check(err, s.Trailer())
}

func TestAMethodThatTheAppDoesNotHave(t *testing.T) {
	t.Parallel()
	_, err := through(t, &service{}).EmptyCall(limited(t), &pb.Empty{})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "EmptyCall") {
		t.Error(err)
	}
}

// 10 MB pass each way in messages of 1 MB.
func TestStreamsOfEachKind(t *testing.T) {
	t.Parallel()
	const count, size = 10, 1 << 20
	c := through(t, &service{
		output: func(in *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
			for range in.GetResponseParameters() {
				if err := s.Send(&pb.StreamingOutputCallResponse{Payload: payload(size)}); err != nil {
					return err
				}
			}
			return nil
		},
		input: func(s pb.TestService_StreamingInputCallServer) error {
			sum := 0
			for {
				in, err := s.Recv()
				if err == io.EOF {
					return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
				}
				if err != nil {
					return err
				}
				sum += len(in.GetPayload().GetBody())
			}
		},
	})
	out, err := c.StreamingOutputCall(limited(t), &pb.StreamingOutputCallRequest{ResponseParameters: make([]*pb.ResponseParameters, count)})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for {
		m, err := out.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sum += len(m.GetPayload().GetBody())
	}
	if sum != count*size {
		t.Errorf("%d bytes came, want %d", sum, count*size)
	}
	in, err := c.StreamingInputCall(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	for range count {
		if err := in.Send(&pb.StreamingInputCallRequest{Payload: payload(size)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := in.CloseAndRecv(); err != nil || got.GetAggregatedPayloadSize() != count*size {
		t.Errorf("%v, %v", got, err)
	}
}

// The app's header arrives before any message, and each message before the next
// one is sent.
func TestADialogue(t *testing.T) {
	t.Parallel()
	c := through(t, &service{duplex: func(s pb.TestService_FullDuplexCallServer) error {
		if err := s.SendHeader(metadata.Pairs("x-early", "1")); err != nil {
			return err
		}
		for {
			in, err := s.Recv()
			if err == io.EOF {
				return s.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: []byte("bye")}})
			}
			if err != nil {
				return err
			}
			if err := s.Send(&pb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
				return err
			}
		}
	}})
	s, err := c.FullDuplexCall(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if md, err := s.Header(); err != nil || len(md["x-early"]) != 1 {
		t.Fatalf("%v, %v", md, err)
	}
	for n := range 20 {
		want := strings.Repeat("x", n*n*100) // the empty message, too
		if err := s.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte(want)}}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Recv(); err != nil || string(got.GetPayload().GetBody()) != want {
			t.Fatalf("%d: %v, %v", n, got, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Recv(); err != nil || string(got.GetPayload().GetBody()) != "bye" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("%v, want the end", err)
	}
}

func TestTheCallersEndIsTheApps(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan time.Time, 1), make(chan error, 1)
	c := through(t, &service{duplex: func(s pb.TestService_FullDuplexCallServer) error {
		until, _ := s.Context().Deadline()
		begun <- until
		<-s.Context().Done()
		ended <- s.Context().Err()
		return nil
	}})
	ctx, cancel := context.WithCancel(limited(t))
	until, _ := ctx.Deadline()
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-begun; until.Sub(got).Abs() > time.Minute || got.IsZero() {
		t.Errorf("deadline %v, want about %v", got, until)
	}
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Error(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if s, err = c.FullDuplexCall(short); err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
}

// An app that ends a call while the caller still sends is heard at once.
func TestTheAppsEndIsTheCallers(t *testing.T) {
	t.Parallel()
	c := through(t, &service{duplex: func(s pb.TestService_FullDuplexCallServer) error {
		if _, err := s.Recv(); err != nil {
			return err
		}
		return status.Error(codes.Aborted, "enough")
	}})
	s, err := c.FullDuplexCall(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = s.Send(&pb.StreamingOutputCallRequest{Payload: payload(1 << 10)})
	}
	if _, err := s.Recv(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
}

// Who does not read slows down who sends: not all that is sent gets held between.
func TestTheSenderWaitsForTheReader(t *testing.T) {
	t.Parallel()
	const size, most = 1 << 20, 200
	sent, stuck := make(chan int, most+1), make(chan struct{})
	c := through(t, &service{output: func(_ *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
		defer close(stuck)
		for n := range most {
			if err := s.Send(&pb.StreamingOutputCallResponse{Payload: payload(size)}); err != nil {
				return err
			}
			sent <- n
		}
		return nil
	}})
	ctx, cancel := context.WithCancel(limited(t))
	defer cancel()
	s, err := c.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	// Nothing more is sent in a second: it is waited for, however slow the machine.
	n := 0
	for quiet := time.NewTimer(time.Second); ; quiet.Reset(time.Second) {
		select {
		case n = <-sent:
			continue
		case <-quiet.C:
		}
		break
	}
	// A connection may hold a window of its own, of at most 16 MiB.
	if n > most/2 {
		t.Errorf("%d MB were taken while one was read", n+1)
	}
	cancel()
	<-stuck
}

func TestAMessageOverTheLimit(t *testing.T) {
	t.Parallel()
	c := through(t, &service{input: func(s pb.TestService_StreamingInputCallServer) error {
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	}})
	s, err := c.StreamingInputCall(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&pb.StreamingInputCallRequest{Payload: payload(5 << 20)}) // CloseAndRecv says why
	if _, err := s.CloseAndRecv(); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
}

// What was not sent says so, has read nothing, and can go elsewhere.
func TestACallThatWasNotSentCanBeSentAgain(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	gone, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	there := direct(t, &service{unary: func(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Payload: in.GetPayload()}, nil
	}})
	first := make(chan error, 1)
	conn := serve(t, grpc.NewServer(grpc.ForceServerCodecV2(proxy.Codec()), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		c := proxy.New(ss)
		first <- c.To(ss.Context(), gone, c.Metadata)
		return c.To(ss.Context(), there, c.Metadata)
	})))
	out, err := pb.NewTestServiceClient(conn).UnaryCall(limited(t), &pb.SimpleRequest{Payload: payload(7)})
	if err != nil || len(out.GetPayload().GetBody()) != 7 {
		t.Errorf("%v, %v", out, err)
	}
	if err := <-first; !message.IsUnsent(err) || proxy.IsAnswer(err) || fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
}
