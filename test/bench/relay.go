package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
)

// runRelay is the least that a program can be that passes calls on: a bare
// net/http reverse proxy, a bare forwarder of gRPC calls, or a copy of bytes.
func runRelay(ctx context.Context, kind, address, to string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	switch kind {
	case "http":
		err = relayHTTP(l, to)
	case "grpc":
		err = relayGRPC(l, to)
	case "tcp":
		err = relayTCP(l, to)
	default:
		return fmt.Errorf("no relay is called %q", kind)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func relayHTTP(l net.Listener, to string) error {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	proxy.Transport = transport
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(l)
}

func relayTCP(l net.Listener, to string) error {
	for {
		in, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer out.Close()
			go func() {
				_, _ = io.Copy(out, in)
				_ = out.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(in, out)
		}()
	}
}

// raw is a codec of messages that are passed on as they are.
type raw struct{}

// Marshal implements [encoding.CodecV2].
func (raw) Marshal(v any) (mem.BufferSlice, error) { return *v.(*mem.BufferSlice), nil }

// Unmarshal implements [encoding.CodecV2].
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	data.Ref()
	*v.(*mem.BufferSlice) = data
	return nil
}

// Name implements [encoding.CodecV2].
func (raw) Name() string { return "proto" }

func dialGRPC(to string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+to, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
}

func relayGRPC(l net.Listener, to string) error {
	conn, err := dialGRPC(to)
	if err != nil {
		return err
	}
	defer conn.Close()
	return serveRaw(l, func(_ any, in grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(in)
		md, _ := metadata.FromIncomingContext(in.Context())
		ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(in.Context(), md.Copy()))
		defer cancel()
		out, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err != nil {
			return err
		}
		go func() {
			if pass(in.RecvMsg, out.SendMsg) == nil {
				_ = out.CloseSend()
			}
		}()
		return pass(out.RecvMsg, in.SendMsg)
	})
}

// pass passes messages on until there is none.
func pass(recv, send func(any) error) error {
	for {
		var m mem.BufferSlice
		if err := recv(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := send(&m); err != nil { // which frees the message
			return err
		}
	}
}

func serveRaw(l net.Listener, handle grpc.StreamHandler) error {
	return grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(handle)).Serve(l)
}

// echoMethod is what the app of the gRPC measurement answers with what it got.
const echoMethod = "/bench.Echo/Call"

func echo(_ any, in grpc.ServerStream) error {
	if method, _ := grpc.MethodFromServerStream(in); method != echoMethod {
		return grpcstatus.Error(codes.Unimplemented, "only echo is here")
	}
	return pass(in.RecvMsg, in.SendMsg)
}
