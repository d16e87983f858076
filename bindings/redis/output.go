package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Operations returns create, get, delete and increment.
func (b *output) Operations() []string { return operations() }

// call is one invocation, checked.
type call struct {
	key  string
	data []byte
	ttl  time.Duration // 0: for ever
	once bool          // get deletes
}

// Invoke implements bindings.Invoker.
func (b *output) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	do := map[string]func(context.Context, call) (*bindings.Response, error){
		"create": b.create, "get": b.get, "delete": b.remove, "increment": b.increment,
	}[r.Operation]
	if do == nil {
		return nil, fault.New(fault.Invalid, "operation %.40q is not supported; use %s", r.Operation, strings.Join(operations(), ", "))
	}
	ttl, _, err := cloudevents.TTL(r.Metadata)
	if err != nil {
		return nil, err
	}
	c := call{key: value(r.Metadata, "key"), data: r.Data, ttl: ttl, once: strings.EqualFold(value(r.Metadata, "delete"), "true")}
	if c.key == "" {
		return nil, fault.New(fault.Invalid, "%s: metadata key is missing", r.Operation)
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(err, "key %.200q", c.key)
	}
	if !b.begin() {
		return nil, fault.New(fault.Unavailable, "%s: the binding is closed", r.Operation)
	}
	defer b.calls.Done()
	resp, err := do(ctx, c)
	if err != nil {
		return nil, fault.Wrap(client.Classify(err), "key %.200q", c.key)
	}
	return resp, nil
}

// value returns a request's metadata, whatever the case of its name.
func value(metadata map[string]string, name string) string {
	if v, ok := metadata[name]; ok {
		return v
	}
	for k, v := range metadata {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

func (b *output) create(ctx context.Context, c call) (*bindings.Response, error) {
	cmd := b.c.B().Set().Key(c.key).Value(rueidis.BinaryString(c.data))
	if c.ttl > 0 {
		return nil, b.c.Do(ctx, cmd.ExSeconds(int64(c.ttl/time.Second)).Build()).Error()
	}
	return nil, b.c.Do(ctx, cmd.Build()).Error()
}

// get answers with nothing when there is no such key.
func (b *output) get(ctx context.Context, c call) (*bindings.Response, error) {
	cmd := b.c.B().Get().Key(c.key).Build()
	if c.once {
		cmd = b.c.B().Getdel().Key(c.key).Build()
	}
	data, err := b.c.Do(ctx, cmd).AsBytes()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &bindings.Response{Data: data}, nil
}

func (b *output) remove(ctx context.Context, c call) (*bindings.Response, error) {
	return nil, b.c.Do(ctx, b.c.B().Del().Key(c.key).Build()).Error()
}

// increment answers with the new number.
func (b *output) increment(ctx context.Context, c call) (*bindings.Response, error) {
	cmds := rueidis.Commands{b.c.B().Incr().Key(c.key).Build()}
	if c.ttl > 0 {
		cmds = append(cmds, b.c.B().Expire().Key(c.key).Seconds(int64(c.ttl/time.Second)).Build())
	}
	var number int64
	for i, answer := range b.c.DoMulti(ctx, cmds...) {
		n, err := answer.AsInt64()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			number = n
		}
	}
	return &bindings.Response{Data: strconv.AppendInt(nil, number, 10)}, nil
}
