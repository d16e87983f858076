package pluggable

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"mime"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// input reads from a component, output sends to one, and both do both over one
// connection.
type (
	input struct {
		*link
		env component.Env
	}
	output struct {
		*link
		operations *atomic.Pointer[[]string]
	}
	both struct {
		input
		out output
	}
)

func openBinding(path string) func(context.Context, component.Env, map[string]string) (bindings.Driver, error) {
	return func(ctx context.Context, env component.Env, options map[string]string) (bindings.Driver, error) {
		var has map[string]bool
		operations := &atomic.Pointer[[]string]{}
		l, err := openLink(ctx, path, env, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			if has == nil { // a later process must serve the same
				has, err = serves(ctx, conn, inputService, outputService)
			}
			if err == nil {
				err = greetBinding(ctx, conn, options, has, operations)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		in, out := input{l, env}, output{l, operations}
		switch {
		case !has[outputService]:
			return in, nil
		case !has[inputService]:
			return out, nil
		}
		return both{in, out}, nil
	}
}

const (
	inputService  = "dapr.proto.components.v1.InputBinding"
	outputService = "dapr.proto.components.v1.OutputBinding"
)

// greetBinding says Init to each half and asks for the operations.
func greetBinding(ctx context.Context, conn *grpc.ClientConn, options map[string]string, has map[string]bool, operations *atomic.Pointer[[]string]) error {
	metadata := &components.MetadataRequest{Properties: options}
	if has[inputService] {
		_, err := components.NewInputBindingClient(conn).Init(ctx, &components.InputBindingInitRequest{Metadata: metadata})
		if err != nil {
			return failed(err, "init input")
		}
	}
	if !has[outputService] {
		return nil
	}
	client := components.NewOutputBindingClient(conn)
	if _, err := client.Init(ctx, &components.OutputBindingInitRequest{Metadata: metadata}); err != nil {
		return failed(err, "init output")
	}
	r, err := client.ListOperations(ctx, &components.ListOperationsRequest{})
	if err != nil {
		return failed(err, "list operations")
	}
	list := r.GetOperations()
	operations.Store(&list)
	return nil
}

// Capabilities implements [component.Capable].
func (input) Capabilities() []string { return []string{bindings.InputCapability} }

// Capabilities implements [component.Capable].
func (output) Capabilities() []string { return []string{bindings.OutputCapability} }

// Capabilities implements [component.Capable].
func (both) Capabilities() []string {
	return []string{bindings.InputCapability, bindings.OutputCapability}
}

// Operations implements [bindings.Invoker].
func (b both) Operations() []string { return b.out.Operations() }

// Invoke implements [bindings.Invoker].
func (b both) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	return b.out.Invoke(ctx, r)
}

// Operations implements [bindings.Invoker].
func (o output) Operations() []string { return *o.operations.Load() }

// Invoke implements [bindings.Invoker].
func (o output) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if ops := o.Operations(); !slices.Contains(ops, r.Operation) {
		return nil, fault.New(fault.Invalid, "operation %q is not supported; use one of %s", line(r.Operation), strings.Join(ops, ", "))
	}
	if err := tooLarge(r.Data); err != nil {
		return nil, err
	}
	c, err := o.connection(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := components.NewOutputBindingClient(c).Invoke(ctx, &components.InvokeRequest{
		Data: r.Data, Metadata: r.Metadata, Operation: r.Operation,
	})
	if err != nil {
		return nil, failed(err, "invoke")
	}
	return &bindings.Response{Data: resp.GetData(), Metadata: resp.GetMetadata()}, nil
}

// Read implements [bindings.Reader].
func (in input) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	x, err := in.exchange(ctx, false, func(ctx context.Context, c *connection) (wire, error) {
		stream, err := components.NewInputBindingClient(c).Read(ctx)
		return reading{stream}, failed(err, "read")
	})
	if err == nil {
		err = x.run(ctx, in.link, func(ctx context.Context, m message) error {
			e, err := in.event(m)
			if err != nil {
				return err
			}
			d := &cloudevents.Delivery{Body: m.data, Event: e, Metadata: m.metadata, Origin: in.env.Name}
			return x.emit(ctx, m.id, d, emit)
		})
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// event makes the event of a message. Its id is that of the message, which a
// component gives again when it delivers again.
func (in input) event(m message) (*cloudevents.Event, error) {
	id := m.id
	if id == "" {
		id = cloudevents.NewID()
	}
	contentType := m.contentType
	if _, _, err := mime.ParseMediaType(contentType); err != nil { // none, too
		contentType = "application/octet-stream"
		if m.contentType == "" && json.Valid(m.data) {
			contentType = "application/json"
		}
	}
	e, err := in.build(contentType, id, m.data)
	if err != nil { // it cannot be written so
		sum := sha256.Sum256([]byte(id))
		e, err = in.build("application/octet-stream", hex.EncodeToString(sum[:16]), m.data)
	}
	return e, err
}

func (in input) build(contentType, id string, data []byte) (*cloudevents.Event, error) {
	source := "/" + url.PathEscape(in.env.Name)
	if in.env.AppID != "" {
		source = "/" + url.PathEscape(in.env.AppID) + source
	}
	return cloudevents.New(contentType, data,
		cloudevents.Attr{Name: "id", Value: id},
		cloudevents.Attr{Name: "source", Value: source},
		cloudevents.Attr{Name: "type", Value: "io.penstock.pluggable.event"},
		cloudevents.Attr{Name: "time", Value: time.Now().UTC().Format(time.RFC3339Nano)},
	)
}

// reading is the stream of an input.
type reading struct {
	components.InputBinding_ReadClient
}

// Recv implements wire.
func (r reading) Recv() (message, error) {
	m, err := r.InputBinding_ReadClient.Recv()
	return message{id: m.GetMessageId(), contentType: m.GetContentType(), data: m.GetData(), metadata: m.GetMetadata()}, err
}

// Send implements wire.
func (r reading) Send(a answer) error {
	m := &components.ReadRequest{MessageId: a.id}
	if a.failed {
		m.ResponseError = &components.AckResponseError{Message: a.why}
	}
	return r.InputBinding_ReadClient.Send(m)
}
