// Package proxy carries calls of services that nobody here knows, from the server
// that took them to another one, message by message.
//
// A server that takes such calls is made with [Codec] and hands those of unknown
// services, as a [Call], to whoever knows where they go; that one calls To with a
// connection. All four kinds of calls are one to it: messages come and go both
// ways at once.
//
// It promises that messages pass as the bytes they are, and that of each
// direction one is held at a time: a side that does not read slows the other one
// down. Headers, trailers, status with details, the deadline and the end of
// either side go through. What belongs to one hop, and tokens, do not.
package proxy

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

// AppID is the metadata that names the app a call is for.
const AppID = "dapr-app-id"

// Call is a call that came in and is to go on.
type Call struct {
	// Method is the full name: /package.Service/Method.
	Method string
	// Target is what [AppID] says; empty when it says nothing, or several things.
	Target string
	// Metadata goes on with the call; whoever holds the call may change it.
	Metadata metadata.MD
	// Lasting tells that the caller says, by dapr-stream, that the call is a stream
	// without an end of its own.
	Lasting bool

	in      grpc.ServerStream
	subtype string // of the messages: proto, json, ...
}

// New reads the beginning of a call that a server made with [Codec] took. No
// message is read.
func New(in grpc.ServerStream) *Call {
	md, _ := metadata.FromIncomingContext(in.Context())
	c := &Call{in: in, Metadata: Clean(md)}
	c.Method, _ = grpc.MethodFromServerStream(in)
	if to := md[AppID]; len(to) == 1 {
		c.Target = to[0]
	}
	if v := md["dapr-stream"]; len(v) == 1 {
		c.Lasting = truthy(v[0])
	}
	if kind := md["content-type"]; len(kind) == 1 {
		_, c.subtype, _ = strings.Cut(kind[0], "+")
	}
	return c
}

func truthy(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "y", "yes", "true", "t", "on", "1":
		return true
	}
	return false
}

// Unsent is the error of a call of which nothing was sent: the connection could
// not be opened. None of the caller's messages was read, so it may be tried again.
type Unsent struct{ s *status.Status }

// Error returns what gRPC says of it.
func (u Unsent) Error() string { return "open call: " + strings.ToValidUTF8(u.s.Message(), "\uFFFD") }

// GRPCCode returns the code, by which a policy may judge the error.
func (u Unsent) GRPCCode() uint32 { return uint32(u.s.Code()) }

// IsAnswer tells whether err is the status that the other side answered with, or
// with which the call broke, which is for the caller as it is.
func IsAnswer(err error) bool {
	_, ok := err.(interface{ GRPCStatus() *status.Status })
	return ok
}

// To sends the call over conn, with md, and passes back what comes. It returns
// nil, the status that the call ended with (see [IsAnswer]), or an [Unsent] error
// of the kind its code stands for. Only after the last it may be called again.
//
// Messages are bounded by the limits of the server that took the call and of conn.
// The call ends with ctx, which must come from that of the call.
func (c *Call) To(ctx context.Context, conn grpc.ClientConnInterface, md metadata.MD) error {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
	defer cancel()
	out, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, c.Method,
		grpc.ForceCodecV2(Codec()), grpc.CallContentSubtype(c.subtype))
	if err != nil {
		s := status.Convert(err)
		return message.Unsent(fault.As(fault.FromGRPCCode(uint32(s.Code())), Unsent{s}))
	}
	// Nothing but the end of the handler, whose return this is, ends a wait for
	// the caller's next message: the goroutine ends then, and is not waited for.
	broken := make(chan error, 1)
	go func() {
		if err := c.up(out); err != nil {
			broken <- err
			cancel()
		}
	}()
	err = c.down(out)
	c.in.SetTrailer(Clean(out.Trailer()))
	if status.Code(err) == codes.Canceled {
		select {
		case err = <-broken:
		default:
		}
	}
	return err
}

// up passes on the caller's messages. An error is one of the caller's side, or of
// a message that cannot be sent.
func (c *Call) up(out grpc.ClientStream) error {
	for {
		f := new(frame)
		err := c.in.RecvMsg(f)
		if errors.Is(err, io.EOF) {
			return out.CloseSend()
		}
		if err != nil {
			return err
		}
		err = out.SendMsg(f)
		f.free()
		if errors.Is(err, io.EOF) {
			return nil // the call is over; down says why
		}
		if err != nil {
			return err
		}
	}
}

// down passes back the header, which may be there long before the first message,
// and the messages.
func (c *Call) down(out grpc.ClientStream) error {
	header, err := out.Header()
	if err != nil {
		return err
	}
	if header != nil { // an answer that is a status only has none
		if err := c.in.SendHeader(Clean(header)); err != nil {
			return err
		}
	}
	for {
		f := new(frame)
		err := out.RecvMsg(f)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = c.in.SendMsg(f)
		f.free()
		if err != nil {
			return err
		}
	}
}
