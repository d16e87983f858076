// Package redis is the binding "bindings.redis": it sets, reads, deletes and
// counts up keys as Dapr's does, and, which Dapr does not, brings in the entries of
// a stream or a list.
//
// With the option stream it is a consumer of a group of that stream, with list it
// takes the entries out of that list; with neither it has no input.
//
// Promises: an invocation returns when the server has done it. An entry that came
// in stays in the server until it is settled: in the pending list of its group, or
// in keys beside its list. A retry keeps its time and its count there, and the
// entries of a process that dies are taken over within five seconds.
package redis

import (
	"context"
	"errors"
	"sync"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/client/redis/lists"
	"github.com/penstock-io/penstock/client/redis/streams"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("redis", component.About{
	Summary: "Sets, reads, deletes and counts up keys of Redis, and brings in the entries of a stream or a list",
	Ack: "An invocation returns when the server has done it. Of a stream: XACK, many at once; the entry stays in the stream. " +
		"Of a list: the entry leaves the list when it is taken, for keys beside it whose names begin with penstock:list:, and those when it is settled",
	Order: "In the order of the stream or list for each process, also after one that was killed: what is new waits the 3 s until its entries are taken over; processes that share one may overtake each other, and a retry without a key is overtaken",
	Limits: "queueDepth (100) entries for each read, 16 MiB; 10000 of a stream waiting for a retry. A list needs a server of version 6.2 or newer that allows scripts. " +
		"A user of an access control list needs the keys penstock:* beside its own, for an input. What the server loses when it stops is lost: have it write an append-only file",
	Scale: "Processes share the consumer group, or the list; the work of one that dies is taken over within 5 s",
	Dapr:  "Has an input. increment answers with the new number; create and its time to live are one command",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: jobs
spec:
  type: bindings.redis
  version: v1
  metadata:
    - name: redisHost
      value: localhost:6379
    - name: list
      value: jobs
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create", "get", "delete", "increment"} }

type options struct {
	client.Options
	Stream            string            `meta:"stream"            doc:"Stream to read; empty means none. Dapr has no such input." example:"orders"`
	ConsumerGroup     string            `meta:"consumerGroup"     doc:"Group to read the stream as, made at the stream's beginning; the app id when empty."`
	List              string            `meta:"list"              doc:"List to take entries out of; empty means none. Dapr has no such input." example:"jobs"`
	ListEnd           string            `meta:"listEnd"           default:"left" enum:"left|right" doc:"The end to take from: left when others add with RPUSH, right when they add with LPUSH."`
	QueueDepth        int               `meta:"queueDepth"        default:"100"  doc:"Most entries that one read brings."`
	ProcessingTimeout string            `meta:"processingTimeout" default:"60s"  doc:"How long an entry of the stream may be pending with a consumer of another program before it is taken over; a bare number is milliseconds, 0 is for ever."`
	RedeliverInterval component.Ignored `meta:"redeliverInterval" doc:"Entries of dead consumers are looked for all the time."`
	Concurrency       component.Ignored `meta:"concurrency"       doc:"The route's flow says how many events are under way."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if o.QueueDepth < 1 {
		errs = append(errs, component.OptionErrorf("queueDepth", "must be at least 1"))
	}
	if o.Stream != "" && o.List != "" {
		errs = append(errs, component.OptionErrorf("list", "cannot be beside stream; use a component for each"))
	}
	if d, err := client.Duration(o.ProcessingTimeout); err != nil || d < 0 {
		errs = append(errs, component.OptionErrorf("processingTimeout", "must be a duration such as 60s, and not negative"))
	}
	return errors.Join(errs...)
}

// output is a binding without an input.
type output struct {
	c     *client.Client
	mu    sync.Mutex // guards closed, and calls against it
	calls sync.WaitGroup
	done  bool
}

// binding has an input too.
type binding struct {
	*output
	read    func(context.Context, cloudevents.EmitFunc) error
	backlog func(context.Context) (cloudevents.Backlog, error)
	close   func(context.Context) error
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	out := &output{c: c}
	switch {
	case o.Stream != "":
		return openStream(ctx, env, o, out)
	case o.List != "":
		source := source{name: env.Name, of: o.List}
		r := lists.New(ctx, lists.Options{
			Client: c, Logger: env.Logger, List: o.List, Right: o.ListEnd == "right", Count: o.QueueDepth, Decode: source.item,
		})
		return &binding{output: out, read: r.Read, backlog: r.Backlog, close: r.Close}, nil
	}
	return out, nil
}

func openStream(ctx context.Context, env component.Env, o options, out *output) (bindings.Driver, error) {
	timeout, err := client.Duration(o.ProcessingTimeout)
	if err != nil {
		return nil, errors.Join(fault.As(fault.Invalid, err), out.c.Close())
	}
	group := o.ConsumerGroup
	if group == "" {
		group = env.AppID
	}
	source := source{name: env.Name, of: o.Stream}
	groups := streams.New(ctx, streams.Options{Client: out.c, Logger: env.Logger, Timeout: timeout, Count: o.QueueDepth, Aside: true})
	read := func(ctx context.Context, emit cloudevents.EmitFunc) error {
		return groups.Read(ctx, o.Stream, group, source.entry, emit)
	}
	backlog := func(ctx context.Context) (cloudevents.Backlog, error) { return groups.Backlog(ctx, o.Stream, group) }
	return &binding{output: out, read: read, backlog: backlog, close: groups.Close}, nil
}

// Read implements bindings.Reader.
func (b *binding) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return b.read(ctx, emit)
}

// Backlog implements bindings.Backlogged.
func (b *binding) Backlog(ctx context.Context) (cloudevents.Backlog, error) { return b.backlog(ctx) }

// begin counts an invocation in; false when the binding is closed.
func (b *output) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.done {
		b.calls.Add(1)
	}
	return !b.done
}

// end refuses invocations from now on; false when they were refused before.
func (b *output) end() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.done
	b.done = true
	return !was
}

// Close waits for invocations and for outcomes to be written until ctx ends.
func (b *binding) Close(ctx context.Context) error {
	if !b.end() {
		return nil
	}
	return errors.Join(b.close(ctx), b.finish(ctx))
}

// Close waits for invocations until ctx ends.
func (b *output) Close(ctx context.Context) error {
	if !b.end() {
		return nil
	}
	return b.finish(ctx)
}

// finish lets go of the connection; calls that are still under way then fail.
func (b *output) finish(ctx context.Context) error {
	idle := make(chan struct{})
	go func() {
		b.calls.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	return b.c.Close()
}
