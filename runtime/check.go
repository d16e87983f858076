package runtime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

// Check returns everything wrong with a configuration that can be told without
// opening anything: component types and options, names that refer to others,
// expressions. It does not repeat what reading the files already reported.
func Check(list component.List, set *config.Set) config.Problems {
	c := &checker{list: list, set: set, defs: map[string]component.Definition{}}
	for _, comp := range set.Components {
		c.component(comp)
	}
	_, cycles := config.OpenOrder(set.Components)
	c.problems = append(c.problems, cycles...)
	for _, s := range set.Subscriptions {
		c.subscription(s)
	}
	readers := map[string]string{}
	for _, p := range set.Pipelines {
		c.pipeline(p, readers)
	}
	return c.problems
}

type checker struct {
	list     component.List
	set      *config.Set
	defs     map[string]component.Definition // of the components with a known type
	problems config.Problems
}

func (c *checker) add(at config.Place, hint, format string, args ...any) {
	c.problems = append(c.problems, config.Problem{Place: at, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *checker) component(comp config.Component) {
	if slices.Contains(c.set.Configuration.Denied, comp.Type) || slices.Contains(c.set.Configuration.Denied, comp.Type+"/"+comp.Version) {
		c.add(comp.TypePlace, "remove it from spec.components.deny of the Configuration", "component %s: type %s is denied", comp.Name, comp.Type)
		return
	}
	def, err := c.list.Find(comp.Type, comp.Version)
	if err != nil {
		c.add(comp.TypePlace, "", "component %s: %v", comp.Name, err)
		return
	}
	c.defs[comp.Name] = def
	for _, p := range def.Check(comp.Metadata) {
		if p.Place.Line == 0 {
			p.Place = comp.Place
		}
		p.Text = "component " + comp.Name + ": " + p.Text
		c.problems = append(c.problems, p)
	}
}

// named finds a component of a kind, or reports that there is none.
func (c *checker) named(kind, name string, at config.Place) (component.Definition, bool) {
	def, ok := c.defs[name]
	if ok && strings.HasPrefix(def.Type, kind+".") {
		return def, true
	}
	var known []string
	for _, comp := range c.set.Components {
		if comp.Name == name && !strings.HasPrefix(comp.Type, kind+".") {
			c.add(at, "", "%q is a %s, not a %s component", name, comp.Type, kind)
			return def, false
		}
		if comp.Name == name {
			return def, false // its own problem is reported already
		}
		if strings.HasPrefix(comp.Type, kind+".") {
			known = append(known, comp.Name)
		}
	}
	if kind == "pubsub" && name == defaultBus && len(c.set.Components) == 0 {
		return def, true
	}
	hint := "declare a Component of that name"
	if near := config.Nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	c.add(at, hint, "no %s component is called %q", kind, name)
	return def, false
}

func (c *checker) subscription(s config.Subscription) {
	c.named("pubsub", s.PubSub, s.Place)
	x := &compiler{expr: expr.New()}
	x.rules(s)
	c.problems = append(c.problems, x.problems...)
}

func (c *checker) pipeline(p config.Pipeline, readers map[string]string) {
	c.source(p, readers)
	for _, to := range p.To {
		c.endpoint(to)
	}
	if p.DeadLetter != nil {
		c.endpoint(*p.DeadLetter)
	}
	_, problems := (&routes{expr: expr.New()}).plan(p)
	c.problems = append(c.problems, problems...)
}

func (c *checker) source(p config.Pipeline, readers map[string]string) {
	if p.From.PubSub != "" {
		c.named("pubsub", p.From.PubSub, p.From.Place)
		return
	}
	def, ok := c.named("bindings", p.From.Binding, p.From.Place)
	if !ok {
		return
	}
	if !slices.Contains(def.About.Capabilities, bindings.InputCapability) {
		c.add(p.From.Place, "use it under \"to\", or start from another binding", "binding %q (%s) has no input", p.From.Binding, def.Type)
	}
	if other, taken := readers[p.From.Binding]; taken {
		c.add(p.From.Place, "publish to a topic and start both pipelines from it", "pipelines %q and %q both read binding %q", other, p.Name, p.From.Binding)
	}
	readers[p.From.Binding] = p.Name
}

func (c *checker) endpoint(to config.Endpoint) {
	if to.PubSub != "" {
		c.named("pubsub", to.PubSub, to.Place)
		return
	}
	if to.Binding == "" {
		return
	}
	def, ok := c.named("bindings", to.Binding, to.Place)
	if !ok {
		return
	}
	if !slices.Contains(def.About.Capabilities, bindings.OutputCapability) {
		c.add(to.Place, "", "binding %q (%s) has no output", to.Binding, def.Type)
		return
	}
	operation := to.Operation
	if operation == "" {
		operation = "create"
	}
	if !slices.Contains(def.About.Operations, operation) {
		c.add(to.Place, "use one of "+strings.Join(def.About.Operations, ", "), "binding %q (%s) has no operation %q", to.Binding, def.Type, operation)
	}
}

// Load reads a configuration and checks it whole.
func Load(list component.List, o config.Options) (*config.Set, config.Problems) {
	set, problems := config.Load(o)
	if set == nil {
		return nil, problems
	}
	return set, append(problems, Check(list, set)...)
}
