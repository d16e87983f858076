package pluggable_test

import (
	"context"
	"sync"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// plug is the binding of a program: instances with a queue that is fed from
// outside and a shelf that takes what is sent, both by the option "box". What is
// not answered is delivered again by the next stream, under the id it had.
type plug struct {
	components.UnimplementedInputBindingServer
	ids ids

	mu    sync.Mutex
	boxes map[string]string // of each instance
	queue map[string][]*item
	more  chan struct{} // closed when an item has come
	shelf map[string][]byte
	inits int
	why   []string // errors of answers
}

type item struct {
	id          string
	data        []byte
	contentType string
	metadata    map[string]string
	out, acked  bool
}

func newPlug() *plug {
	return &plug{boxes: map[string]string{}, queue: map[string][]*item{}, more: make(chan struct{}), shelf: map[string][]byte{}}
}

func (p *plug) setUp(ctx context.Context, properties map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.boxes[instance(ctx)] = properties["box"]
	p.inits++
}

func (p *plug) Init(ctx context.Context, r *components.InputBindingInitRequest) (*components.InputBindingInitResponse, error) {
	p.setUp(ctx, r.GetMetadata().GetProperties())
	return &components.InputBindingInitResponse{}, nil
}

// feed puts items into a box.
func (p *plug) feed(box string, items ...*item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, it := range items {
		if it.id == "" {
			it.id = "id-" + p.ids.next()
		}
	}
	p.queue[box] = append(p.queue[box], items...)
	p.wake()
}

// wake tells the streams that there is something. The caller holds mu.
func (p *plug) wake() {
	close(p.more)
	p.more = make(chan struct{})
}

// next returns the next item that is not with a stream.
func (p *plug) next(box string) (*item, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, it := range p.queue[box] {
		if !it.out && !it.acked {
			it.out = true
			return it, nil
		}
	}
	return nil, p.more
}

func (p *plug) Read(stream components.InputBinding_ReadServer) error {
	box := p.box(stream.Context())
	given := &sync.Map{}
	defer given.Range(func(_, it any) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		it.(*item).out = false
		p.wake()
		return true
	})
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		defer cancel()
		p.answers(stream, given)
	}()
	for {
		it, more := p.next(box)
		if it == nil {
			select {
			case <-more:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		given.Store(it.id, it)
		if err := stream.Send(&components.ReadResponse{Data: it.data, MessageId: it.id, ContentType: it.contentType, Metadata: it.metadata}); err != nil {
			return err
		}
	}
}

func (p *plug) answers(stream components.InputBinding_ReadServer, given *sync.Map) {
	for {
		a, err := stream.Recv()
		if err != nil {
			return
		}
		v, ok := given.LoadAndDelete(a.GetMessageId())
		if !ok {
			continue
		}
		p.mu.Lock()
		it := v.(*item)
		it.out, it.acked = false, a.GetResponseError() == nil
		if e := a.GetResponseError(); e != nil {
			p.why = append(p.why, e.GetMessage())
		}
		p.wake()
		p.mu.Unlock()
	}
}

func (p *plug) box(ctx context.Context) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.boxes[instance(ctx)]
}

func (p *plug) Ping(context.Context, *components.PingRequest) (*components.PingResponse, error) {
	return &components.PingResponse{}, nil
}

// outlet is the output of a plug.
type outlet struct {
	components.UnimplementedOutputBindingServer
	*plug
}

func (o outlet) Init(ctx context.Context, r *components.OutputBindingInitRequest) (*components.OutputBindingInitResponse, error) {
	o.setUp(ctx, r.GetMetadata().GetProperties())
	return &components.OutputBindingInitResponse{}, nil
}

func (o outlet) ListOperations(context.Context, *components.ListOperationsRequest) (*components.ListOperationsResponse, error) {
	return &components.ListOperationsResponse{Operations: []string{"create", "get"}}, nil
}

func (o outlet) Ping(context.Context, *components.PingRequest) (*components.PingResponse, error) {
	return &components.PingResponse{}, nil
}

func (o outlet) Invoke(ctx context.Context, r *components.InvokeRequest) (*components.InvokeResponse, error) {
	key := o.box(ctx) + "/" + r.GetMetadata()["key"]
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.GetOperation() == "create" {
		o.shelf[key] = r.GetData()
		return &components.InvokeResponse{}, nil
	}
	data, ok := o.shelf[key]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no\nsuch key %s.", key)
	}
	return &components.InvokeResponse{Data: data, Metadata: map[string]string{"key": key}}, nil
}
