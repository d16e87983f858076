package main

import (
	"context"
	"sync"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// loop is the binding: what is sent to its output comes in by its input. Each
// component has a queue of its own.
type loop struct {
	mu     sync.Mutex
	queues map[string]*queue // by name of the component
}

func newLoop() *loop { return &loop{queues: map[string]*queue{}} }

// of returns the queue of the component that calls.
func (l *loop) of(ctx context.Context) *queue {
	name := ""
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		for _, v := range md.Get("x-component-instance") {
			name = v
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queues[name] == nil {
		l.queues[name] = newQueue()
	}
	return l.queues[name]
}

type input struct {
	components.UnimplementedInputBindingServer
	*loop
}

// Init gets the metadata of the Component document.
func (input) Init(context.Context, *components.InputBindingInitRequest) (*components.InputBindingInitResponse, error) {
	return &components.InputBindingInitResponse{}, nil
}

// Read is one reader.
func (in input) Read(s components.InputBinding_ReadServer) error {
	return deliver(s.Context(), in.of(s.Context()), stream{
		send: func(m *msg) error {
			return s.Send(&components.ReadResponse{MessageId: m.id, Data: m.data, ContentType: m.contentType, Metadata: m.metadata})
		},
		answer: func() (string, bool, error) {
			a, err := s.Recv()
			return a.GetMessageId(), a.GetResponseError() != nil, err
		},
	})
}

// Ping tells that the program is well.
func (input) Ping(context.Context, *components.PingRequest) (*components.PingResponse, error) {
	return &components.PingResponse{}, nil
}

type output struct {
	components.UnimplementedOutputBindingServer
	*loop
}

// Init gets the metadata of the Component document.
func (output) Init(context.Context, *components.OutputBindingInitRequest) (*components.OutputBindingInitResponse, error) {
	return &components.OutputBindingInitResponse{}, nil
}

// ListOperations says what Invoke takes; other operations do not reach it.
func (output) ListOperations(context.Context, *components.ListOperationsRequest) (*components.ListOperationsResponse, error) {
	return &components.ListOperationsResponse{Operations: []string{"create"}}, nil
}

// Invoke returns when the effect is as safe as it gets.
func (o output) Invoke(ctx context.Context, r *components.InvokeRequest) (*components.InvokeResponse, error) {
	if r.GetOperation() != "create" {
		return nil, status.Errorf(codes.InvalidArgument, "operation %q is not known", r.GetOperation())
	}
	if err := o.of(ctx).put(msg{data: r.GetData(), metadata: r.GetMetadata()}); err != nil {
		return nil, err
	}
	return &components.InvokeResponse{}, nil
}

// Ping tells that the program is well.
func (output) Ping(context.Context, *components.PingRequest) (*components.PingResponse, error) {
	return &components.PingResponse{}, nil
}
