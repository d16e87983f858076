package conform

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// BindingSetup says how one binding is used and, as data, what it cannot do.
type BindingSetup struct {
	// Options makes working options; it is called for each case, so that cases
	// share nothing.
	Options func(t *testing.T) map[string]string
	// Wrong are options that Check must refuse, by the name of the option that
	// the problem has to name; they are put over those of Options.
	Wrong map[string]map[string]string
	// Virtual runs each case in a bubble of testing/synctest: for components
	// that wait for the clock and do no network.
	Virtual bool
	// Patience is how long a case waits for an event; a minute when zero, an hour
	// when Virtual.
	Patience time.Duration

	// Feed lets the outside world bring one event a body. Nil: events come by
	// themselves, without data. Used when the definition has the input
	// capability.
	Feed func(t *testing.T, options map[string]string, bodies ...string)
	// NoRedelivery: a retry outcome is not followed by another delivery in the
	// same Read.
	NoRedelivery bool
	// KeepsDelay: a retry's delay and count outlive Close. Where they do not, what
	// waits for its retry comes again when the component is opened.
	KeepsDelay bool
	// Delay is that of the retry which has to outlive Close, 300 ms when zero:
	// more where the other side counts a delivery to a receive that Close cuts.
	Delay time.Duration
	// Forgets: events that were not settled do not come again after Close.
	Forgets bool

	// Requests are requests that succeed one after the other, at least one for
	// each operation. Used when the definition has the output capability.
	Requests func(options map[string]string) []bindings.Request
	// RoundTrip sends data out and returns what arrived on the other side.
	RoundTrip func(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error)
	// MaxBody is the longest data that the other side takes; zero is a megabyte
	// at least.
	MaxBody int
	// Fails are requests that must fail with a kind.
	Fails []BindingFailure
}

// BindingFailure is a request that must fail.
type BindingFailure struct {
	Name    string
	Request bindings.Request
	Kind    fault.Kind
}

// bindingSuite is what the cases work with.
type bindingSuite struct {
	BindingSetup
	def component.Definition
}

type bindingCase struct {
	name string
	run  func(s *bindingSuite, t *testing.T)
}

// Binding runs the suite of bindings: the options, and what the capabilities of
// the definition promise.
func Binding(t *testing.T, def component.Definition, setup BindingSetup) {
	t.Helper()
	if setup.Patience == 0 {
		setup.Patience = time.Minute
		if setup.Virtual {
			setup.Patience = time.Hour
		}
	}
	s := &bindingSuite{setup, def}
	definition(t, def, setup.Options, setup.Wrong)
	cases := []bindingCase{{"close twice", (*bindingSuite).closeTwice}}
	input := slices.Contains(def.About.Capabilities, bindings.InputCapability)
	output := slices.Contains(def.About.Capabilities, bindings.OutputCapability)
	if !input && !output {
		t.Errorf("%s: About.Capabilities has neither %s nor %s", def.Type, bindings.InputCapability, bindings.OutputCapability)
	}
	if input {
		cases = append(cases, inputCases()...)
	}
	if output {
		cases = append(cases, outputCases()...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if setup.Virtual {
				synctest.Test(t, func(t *testing.T) { c.run(s, t) })
				return
			}
			noLeak(t)
			c.run(s, t)
		})
	}
}

// noLeak checks after everything else, the clean-ups of a setup included, that
// no goroutine is left.
func noLeak(t *testing.T) {
	check := leaks()
	t.Cleanup(func() { check(t) })
}

// definition checks what all components share: docs, the example and what
// Check says about good, missing, unknown and wrong options.
func definition(t *testing.T, def component.Definition, options func(*testing.T) map[string]string, wrong map[string]map[string]string) {
	t.Helper()
	t.Run("definition", func(t *testing.T) {
		if def.About.Summary == "" || strings.HasSuffix(def.About.Summary, ".") {
			t.Errorf("summary %q: want one sentence without a full stop", def.About.Summary)
		}
		for _, o := range def.Options {
			if !strings.HasSuffix(o.Doc, ".") {
				t.Errorf("option %q: its doc %q does not end with a full stop", o.Name, o.Doc)
			}
		}
		example(t, def)
	})
	t.Run("options", func(t *testing.T) {
		good := options(t)
		if ps := def.Check(items(good)); len(ps) > 0 {
			t.Fatalf("good options: %v", ps)
		}
		for _, o := range def.Options {
			if o.Required {
				less := maps.Clone(good)
				delete(less, o.Name)
				refused(t, def, less, o.Name)
			}
		}
		unknownOption(t, def, good)
		for name, change := range wrong {
			bad := maps.Clone(good)
			maps.Copy(bad, change)
			refused(t, def, bad, name)
		}
	})
}

// unknownOption adds an option that nobody knows. A component that takes any
// accepts it, or says why it does not.
func unknownOption(t *testing.T, def component.Definition, good map[string]string) {
	t.Helper()
	more := maps.Clone(good)
	more["thisOptionIsUnknown"] = "x"
	ps := def.Check(items(more))
	if slices.ContainsFunc(def.Options, func(o component.Option) bool { return o.Name == "*" }) {
		if len(ps) > 0 && !strings.Contains(ps.Error(), "thisOptionIsUnknown") {
			t.Errorf("unknown option: %v, and the component takes any", ps)
		}
		return
	}
	if len(ps) != 1 || !ps[0].Lenient || !strings.Contains(ps[0].String(), "thisOptionIsUnknown") {
		t.Errorf("unknown option: %v, want one lenient problem that names it", ps)
	}
}

func refused(t *testing.T, def component.Definition, options map[string]string, name string) {
	t.Helper()
	ps := def.Check(items(options))
	if errs, _ := ps.Split(false); len(errs) == 0 || !strings.Contains(ps.Error(), name) {
		t.Errorf("options %v: %v, want a problem that names %q", options, ps, name)
	}
}

// example checks that the example in the docs loads as it stands.
func example(t *testing.T, def component.Definition) {
	t.Helper()
	set, ps := config.Parse("example.yaml", []byte(def.About.Example), config.Options{})
	if len(ps) > 0 || len(set.Components) != 1 {
		t.Fatalf("example: %d components, problems %v", len(set.Components), ps)
	}
	c := set.Components[0]
	if c.Type != def.Type {
		t.Errorf("example is of type %s", c.Type)
	}
	if ps := def.Check(c.Metadata); len(ps) > 0 {
		t.Errorf("example: %v", ps)
	}
}

func items(options map[string]string) (all []config.Item) {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		all = append(all, config.Item{Name: name, Value: options[name]})
	}
	return all
}

// environment is that of a process of its own, with a fresh data folder.
func environment(t *testing.T) component.Env {
	return component.Env{
		AppID: "app", Name: "conform", DataDir: t.TempDir(),
		Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{},
	}
}

// opened opens the component.
func opened(t *testing.T, def component.Definition, env component.Env, options map[string]string) component.Driver {
	t.Helper()
	d, err := def.Open(t.Context(), env, items(options))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return d
}

// shut closes the component with ten seconds to spare.
func shut(t *testing.T, d component.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func (s *bindingSuite) closeTwice(t *testing.T) {
	d := opened(t, s.def, environment(t), s.Options(t))
	shut(t, d)
	shut(t, d)
}

// feed brings one event a body, where events do not come by themselves.
func (s *bindingSuite) feed(t *testing.T, options map[string]string, bodies ...string) {
	t.Helper()
	if s.Feed != nil {
		s.Feed(t, options, bodies...)
	}
}

// wantBody checks a delivery's data against the body that was fed.
func (s *bindingSuite) wantBody(t *testing.T, d *cloudevents.Delivery, body string) {
	t.Helper()
	if s.Feed == nil {
		body = ""
	}
	if string(d.Body) != body {
		t.Errorf("received %q, want %q", short(d.Body), short([]byte(body)))
	}
}
