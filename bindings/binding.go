package bindings

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// The capabilities that a definition's About lists.
const (
	InputCapability  = "INPUT_BINDING"
	OutputCapability = "OUTPUT_BINDING"
)

// Binding is one configured binding: the type everybody but implementations
// uses.
type Binding struct {
	name     string
	about    component.About
	options  common
	instance *component.Instance[Driver]
	policy   atomic.Pointer[resilience.Policy] // of Invoke; nil: none
	calls    *telemetry.Calls                  // of Invoke
	tracer   *trace.Tracer
}

// New makes the binding of a component; nothing is opened before Run of its
// instance. The position of env goes to an exclusive one only.
func New(def component.Definition, env component.Env, c config.Component) (*Binding, error) {
	o, problems := component.Decode[common](def.Type, c.Metadata, def.Options)
	if errs, _ := problems.Split(false); len(errs) > 0 {
		return nil, fault.As(fault.Invalid, errs)
	}
	if o.Exclusive == "" {
		env.Position = nil
	}
	return &Binding{
		name: c.Name, about: def.About, options: o, calls: env.Metrics.Calls(telemetry.Output, c.Name), tracer: env.Tracer,
		instance: component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout),
	}, nil
}

// Instance returns the component's life: opening, state, closing.
func (b *Binding) Instance() *component.Instance[Driver] { return b.instance }

// Name returns the component's name.
func (b *Binding) Name() string { return b.name }

// Route returns the path of the app that events go to, with a leading slash.
func (b *Binding) Route() string {
	r := b.options.Route
	if r == "" {
		r = b.name
	}
	return "/" + strings.TrimPrefix(r, "/")
}

// Exclusive names the lock store of an input that one replica reads at a time;
// empty when all do.
func (b *Binding) Exclusive() string { return b.options.Exclusive }

// Replies tells whether what the app's answer asks for is carried out.
func (b *Binding) Replies() bool { return b.options.Reply != "ignore" }

// Input tells whether the binding can be read from and is not declared for
// output only.
func (b *Binding) Input() bool {
	if len(b.options.Direction) > 0 && !b.declares("input") {
		return false
	}
	if d, err := b.instance.Driver(); err == nil {
		_, ok := d.(Reader) // what it was configured as, not what it could be
		return ok
	}
	return slices.Contains(b.about.Capabilities, InputCapability)
}

// InputDeclared tells whether the component says that it is an input, so that
// the app need not be asked.
func (b *Binding) InputDeclared() bool { return b.declares("input") }

// Output tells whether the binding can be invoked and is not declared for input
// only.
func (b *Binding) Output() bool {
	if len(b.options.Direction) > 0 && !b.declares("output") {
		return false
	}
	if d, err := b.instance.Driver(); err == nil {
		_, ok := d.(Invoker)
		return ok
	}
	return slices.Contains(b.about.Capabilities, OutputCapability)
}

func (b *Binding) declares(word string) bool {
	return slices.Contains(b.options.Direction, word)
}

// Operations returns what Invoke takes, nil for an input only.
func (b *Binding) Operations() []string {
	if !b.Output() {
		return nil
	}
	if d, err := b.instance.Driver(); err == nil {
		if inv, ok := d.(Invoker); ok {
			return inv.Operations()
		}
	}
	return b.about.Operations
}

// Invoke calls the output binding and returns when its effect is durable.
// Kinds: NotFound when it has no output, Invalid for an operation it does not
// take, Unavailable while it is opening.
func (b *Binding) Invoke(ctx context.Context, r *Request) (resp *Response, err error) {
	if !b.Output() {
		return nil, fault.New(fault.NotFound, "invoke binding %s: it has no output", b.name)
	}
	if r.Operation == "" {
		return nil, fault.New(fault.Invalid, "invoke binding %s: operation is missing; use one of %s", b.name, strings.Join(b.Operations(), ", "))
	}
	began := b.calls.Begin()
	ctx, span := b.tracer.Call(ctx, "bindings", b.name, r.Operation)
	defer func() {
		b.calls.DoneIn(span.TraceID(), r.Operation, began, err)
		span.Done(err)
	}()
	p := b.policy.Load()
	traced := r.in(span)
	if p == nil {
		return b.invoke(ctx, traced)
	}
	err = p.Do(ctx, func(ctx context.Context) (err error) {
		resp, err = b.invoke(ctx, traced)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// SetPolicy changes what every Invoke runs under; nil is no policy. Those under
// way go on with the old one.
func (b *Binding) SetPolicy(p *resilience.Policy) { b.policy.Store(p) }

// invoke is one try.
func (b *Binding) invoke(ctx context.Context, r *Request) (*Response, error) {
	d, err := b.instance.Acquire()
	if err != nil {
		if b.instance.State().Word == component.Closed { // it does not open again
			err = resilience.Final(err)
		}
		return nil, err
	}
	defer b.instance.Release()
	inv, ok := d.(Invoker)
	if !ok {
		return nil, fault.New(fault.NotFound, "invoke binding %s: it has no output", b.name)
	}
	if ops := inv.Operations(); !slices.Contains(ops, r.Operation) {
		return nil, fault.New(fault.Invalid, "invoke binding %s: operation %q is not supported; use one of %s", b.name, r.Operation, strings.Join(ops, ", "))
	}
	resp, err := inv.Invoke(ctx, r)
	if err != nil {
		return nil, fault.Wrap(b.instance.Hide(err), "invoke binding %s: %s", b.name, r.Operation)
	}
	return resp, nil
}

// Run hands the binding's events to emit until ctx ends; it has the shape of
// router.Source. It waits for the component to open first.
func (b *Binding) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	d, err := b.instance.Await(ctx)
	if err != nil {
		return err
	}
	r, ok := d.(Reader)
	if !ok {
		return fault.New(fault.Invalid, "read binding %s: it has no input", b.name)
	}
	err = r.Read(ctx, func(ctx context.Context, d *cloudevents.Delivery) error {
		d.Origin = b.name
		return emit(ctx, d)
	})
	return b.instance.Hide(err)
}
