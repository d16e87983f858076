package bindings_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

type closer struct{}

func (closer) Close(context.Context) error { return nil }

// mouth only takes requests, ear only hears events, both does both.
type mouth struct {
	closer
	err error
}

func (mouth) Operations() []string { return []string{"say", "sing"} }

func (m mouth) Invoke(_ context.Context, r *bindings.Request) (*bindings.Response, error) {
	return &bindings.Response{Data: r.Data}, m.err
}

type ear struct{ closer }

func (ear) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return emit(ctx, &cloudevents.Delivery{Settle: func(cloudevents.Outcome) {}})
}

type both struct {
	ear
	mouth
}

func (both) Close(context.Context) error { return nil }

type noOptions struct{}

func define(d bindings.Driver, err error) component.Definition {
	about := component.About{Capabilities: []string{bindings.InputCapability, bindings.OutputCapability}, Operations: []string{"say", "sing"}}
	return bindings.Define("head", about, func(context.Context, component.Env, noOptions) (bindings.Driver, error) { return d, err })
}

// open makes a binding, and opens it unless d is nil.
func open(t *testing.T, d bindings.Driver, items ...config.Item) *bindings.Binding {
	t.Helper()
	b, err := bindings.New(define(d, nil), component.Env{Name: "head"}, config.Component{Name: "head", Type: "bindings.head", Metadata: items})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Instance().Close(context.WithoutCancel(t.Context())) })
	if d != nil {
		if err := b.Instance().Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestWhatABindingIsFor(t *testing.T) {
	t.Parallel()
	type is struct{ input, output, declared bool }
	rows := map[string]struct {
		driver    bindings.Driver
		direction string
		want      is
	}{
		"not open yet":            {nil, "", is{true, true, false}},
		"not open yet, an output": {nil, "output", is{false, true, false}},
		"both":                    {both{}, "", is{true, true, false}},
		"both, as input":          {both{}, "input", is{true, false, true}},
		"both, as output":         {both{}, "output", is{false, true, false}},
		"both, declared":          {both{}, "input, output", is{true, true, true}},
		"an input only":           {ear{}, "", is{true, false, false}},
		"an output only":          {mouth{}, "", is{false, true, false}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var items []config.Item
			if row.direction != "" {
				items = []config.Item{{Name: "direction", Value: row.direction}}
			}
			b := open(t, row.driver, items...)
			got := is{b.Input(), b.Output(), b.InputDeclared()}
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if ops := b.Operations(); (len(ops) > 0) != row.want.output {
				t.Errorf("operations are %v", ops)
			}
		})
	}
}

func TestRoute(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]string{"": "/head", "events": "/events", "/a/b": "/a/b"} {
		if got := open(t, nil, config.Item{Name: "route", Value: option}).Route(); got != want {
			t.Errorf("route %q is %q, want %q", option, got, want)
		}
	}
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		driver    bindings.Driver
		operation string
		want      fault.Kind
	}{
		"no operation":      {mouth{}, "", fault.Invalid},
		"another operation": {mouth{}, "dance", fault.Invalid},
		"no output":         {ear{}, "say", fault.NotFound},
		"not open yet":      {nil, "say", fault.Unavailable},
		"the driver's kind": {mouth{err: fault.New(fault.Conflict, "say: twice")}, "say", fault.Conflict},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := open(t, row.driver).Invoke(t.Context(), &bindings.Request{Operation: row.operation})
			if err == nil || resp != nil || fault.KindOf(err) != row.want {
				t.Errorf("got %v, %v; want kind %v", resp, err, row.want)
			}
		})
	}
	resp, err := open(t, both{}).Invoke(t.Context(), &bindings.Request{Operation: "say", Data: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("hello", string(resp.Data)); diff != "" {
		t.Error(diff)
	}
}

func TestRunSaysWhereEventsAreFrom(t *testing.T) {
	t.Parallel()
	var origin string
	err := open(t, ear{}).Run(t.Context(), func(_ context.Context, d *cloudevents.Delivery) error {
		origin = d.Origin
		return nil
	})
	if err != nil || origin != "head" {
		t.Errorf("origin %q, %v", origin, err)
	}
	if err := open(t, mouth{}).Run(t.Context(), nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("an output was read: %v", err)
	}
}

// deaf is an output that never hears.
type deaf struct {
	closer
	calls *int
}

func (deaf) Operations() []string { return []string{"say"} }

func (d deaf) Invoke(context.Context, *bindings.Request) (*bindings.Response, error) {
	*d.calls++
	return nil, fault.New(fault.Unavailable, "say: nobody is there")
}

func TestInvokeUnderAPolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls, start := 0, time.Now()
		b := open(t, deaf{calls: &calls})
		b.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: time.Second, Limit: 2}})
		if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "say"}); fault.KindOf(err) != fault.Unavailable || calls != 3 {
			t.Errorf("%v after %d calls", err, calls)
		}
		if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "dance"}); fault.KindOf(err) != fault.Invalid || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %s: what is wrong was tried again", err, time.Since(start))
		}
		t.Log("one that is closed meanwhile does not open again")
		b.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: time.Second, Limit: -1}})
		time.AfterFunc(1500*time.Millisecond, func() { b.Instance().Close(context.WithoutCancel(t.Context())) })
		if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "say"}); fault.KindOf(err) != fault.Unavailable || calls != 5 {
			t.Errorf("%v after %d calls", err, calls)
		}
		b.SetPolicy(nil)
	})
}
