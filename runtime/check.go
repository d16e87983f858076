package runtime

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/invoke/names"
)

// Check returns everything wrong with a configuration that can be told without
// opening anything: component types and options, names that refer to others,
// expressions. It does not repeat what reading the files already reported.
func Check(list component.Finder, set *config.Set) config.Problems {
	set = whole(set)
	c := &checker{list: list, set: set, defs: map[string]component.Definition{}}
	for _, comp := range set.Components {
		c.component(comp)
	}
	for _, comp := range set.Components {
		c.references(comp)
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
	c.resiliency(set.Resiliencies)
	for _, e := range set.HTTPEndpoints {
		c.httpEndpoint(e)
	}
	for _, h := range slices.Concat(set.Configuration.Inbound, set.Configuration.ToApp) {
		c.handler(h)
	}
	c.resolver(set.Configuration.Names)
	c.access(set.Configuration.Access)
	return c.problems
}

// whole takes the documents with errors in, so that all their errors are found
// at once and none is called missing.
func whole(set *config.Set) *config.Set {
	if set.Broken == nil {
		return set
	}
	all := *set
	all.Components = slices.Concat(set.Components, set.Broken.Components)
	all.Subscriptions = slices.Concat(set.Subscriptions, set.Broken.Subscriptions)
	all.Pipelines = slices.Concat(set.Pipelines, set.Broken.Pipelines)
	all.Resiliencies = slices.Concat(set.Resiliencies, set.Broken.Resiliencies)
	all.HTTPEndpoints = slices.Concat(set.HTTPEndpoints, set.Broken.HTTPEndpoints)
	all.Elsewhere = slices.Concat(set.Elsewhere, set.Broken.Elsewhere)
	return &all
}

type checker struct {
	list     component.Finder
	set      *config.Set
	defs     map[string]component.Definition // of the components with a known type
	problems config.Problems
}

func (c *checker) add(at config.Place, hint, format string, args ...any) {
	c.problems = append(c.problems, config.Problem{Place: at, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *checker) component(comp config.Component) {
	if comp.Type == "" {
		return // reported as missing
	}
	if slices.Contains(c.set.Configuration.Denied, comp.Type) || slices.Contains(c.set.Configuration.Denied, comp.Type+"/"+comp.Version) {
		c.add(comp.TypePlace, "remove it from spec.components.deny of the Configuration", "component %s: type %s is denied", comp.Name, comp.Type)
		return
	}
	if comp.IgnoreErrors { // it may fail, and the rest goes on without it
		defer c.lenient(len(c.problems))
	}
	def, err := c.list.Find(comp.Type, comp.Version)
	if err != nil {
		c.add(comp.TypePlace, "", "component %s: %v", comp.Name, err)
		return
	}
	if strings.HasPrefix(def.Type, names.Kind+".") {
		c.add(comp.TypePlace, "name it in spec.nameResolution of a Configuration", "component %s: a %s is no Component", comp.Name, def.Type)
		return
	}
	c.defs[comp.Name] = def
	for _, p := range def.Check(comp.Metadata) {
		if p.Place.Line == 0 {
			p.Place = comp.TypePlace
		}
		p.Text = "component " + comp.Name + ": " + p.Text
		c.problems = append(c.problems, p)
	}
}

// references checks the options that name other components. That of Dapr's
// outbox is lenient, because a file that runs there must run here.
func (c *checker) references(comp config.Component) {
	first := len(c.problems)
	kind, _, _ := strings.Cut(strings.ToLower(comp.Type), ".")
	for _, it := range comp.Metadata {
		switch {
		case kind == "bindings" && strings.EqualFold(it.Name, "exclusive"):
			c.named("lock", it.Value, it.Place)
		case kind == "state" && strings.EqualFold(it.Name, "outboxPublishPubsub"):
			c.named("pubsub", it.Value, it.Place)
			c.lenient(first)
		}
	}
	if comp.IgnoreErrors {
		c.lenient(first)
	}
}

// lenient marks the problems from the one numbered first on.
func (c *checker) lenient(first int) {
	for i := range c.problems[first:] {
		c.problems[first+i].Lenient = true
	}
}

// named finds a component of a kind, or reports that there is none.
func (c *checker) named(kind, name string, at config.Place) (component.Definition, bool) {
	def, ok := c.defs[name]
	if ok && strings.HasPrefix(def.Type, kind+".") {
		return def, true
	}
	if name == "" {
		return def, false // reported as missing
	}
	var known []string
	for _, comp := range c.set.Components {
		of := strings.HasPrefix(strings.ToLower(comp.Type), kind+".")
		switch {
		case comp.Name == name && (of || comp.Type == ""):
			return def, false // its own problem is reported already
		case comp.Name == name:
			c.add(at, "", "%q is a %s, not a %s", name, comp.Type, noun(kind))
			return def, false
		case of:
			known = append(known, comp.Name)
		}
	}
	if kind == "pubsub" && name == defaultBus && len(c.set.Components) == 0 {
		return def, true
	}
	hint := config.DidYouMean(name, known)
	if hint == "" {
		hint = "declare a Component of that name"
	}
	c.add(at, hint, "no %s is called %q", noun(kind), name)
	return def, false
}

// noun is what people call a component of a kind.
func noun(kind string) string {
	switch kind {
	case "bindings":
		return "binding"
	case "state":
		return "state store"
	case "secretstores":
		return "secret store"
	case "lock":
		return "lock store"
	case "middleware":
		return "middleware"
	}
	return "pub/sub component"
}

func (c *checker) subscription(s config.Subscription) {
	before := len(c.problems)
	flow, err := s.Flow.Metadata(s.Metadata) // an error is reported where it stands
	c.named("pubsub", s.PubSub, s.PubSubPlace)
	c.dedupe(flow.Dedupe)
	c.lenient(before) // it may be another app's, in a folder that both use
	x := &compiler{expr: expr.New()}
	x.rules(s)
	if err == nil {
		x.flow(placedIn(flow, s.Place))
	}
	c.problems = append(c.problems, x.problems...)
}

// dedupe checks the store that remembers events.
func (c *checker) dedupe(d config.Dedupe) {
	if d.Store != "" {
		c.named("state", d.Store, d.StorePlace)
	}
}

func (c *checker) pipeline(p config.Pipeline, readers map[string]string) {
	c.source(p, readers)
	c.dedupe(p.Dedupe)
	for _, s := range p.Steps {
		c.step(s)
	}
	for _, to := range p.To {
		c.endpoint(to)
	}
	if d := p.DeadLetter; d != nil {
		c.endpoint(*d)
		if d.PubSub != "" && len(d.Metadata) > 0 {
			c.add(d.Place, "remove it; a dead letter keeps the metadata it came with", "metadata is not used on the way to a dead letter topic")
		}
		if d.PubSub != "" && d.PubSub == p.From.PubSub && d.Topic == p.From.Topic {
			c.add(d.Place, "use another topic", "pipeline %q would read its own dead letters from topic %q", p.Name, d.Topic)
		}
	}
	_, problems := (&routes{expr: expr.New()}).plan(p)
	c.problems = append(c.problems, problems...)
}

// step checks the stores that a step names.
func (c *checker) step(s config.Step) {
	switch {
	case s.Enrich != nil && s.Enrich.SecretStore != "":
		c.named("secretstores", s.Enrich.SecretStore, s.Enrich.StorePlace)
	case s.Enrich != nil:
		c.named("state", s.Enrich.Store, s.Enrich.StorePlace)
	case s.Save != nil:
		c.named("state", s.Save.Store, s.Save.StorePlace)
	}
}

func (c *checker) source(p config.Pipeline, readers map[string]string) {
	if p.From.Operation != "" || len(p.From.Metadata) > 0 {
		c.add(p.From.Place, "options of the binding stand in its Component document", "\"from\" takes neither operation nor metadata")
	}
	if p.From.PubSub != "" {
		c.named("pubsub", p.From.PubSub, p.From.NamePlace)
		return
	}
	def, ok := c.named("bindings", p.From.Binding, p.From.NamePlace)
	if !ok {
		return
	}
	if !slices.Contains(def.About.Capabilities, bindings.InputCapability) {
		c.add(p.From.NamePlace, "use it under \"to\", or start from another binding", "binding %q (%s) has no input", p.From.Binding, def.Type)
	}
	if other, taken := readers[p.From.Binding]; taken {
		c.add(p.From.NamePlace, "publish to a topic and start both pipelines from it", "pipelines %q and %q both read binding %q", other, p.Name, p.From.Binding)
	}
	readers[p.From.Binding] = p.Name
}

func (c *checker) endpoint(to config.Endpoint) {
	if to.PubSub != "" {
		c.named("pubsub", to.PubSub, to.NamePlace)
		return
	}
	if to.Binding == "" {
		return
	}
	def, ok := c.named("bindings", to.Binding, to.NamePlace)
	if !ok {
		return
	}
	if !slices.Contains(def.About.Capabilities, bindings.OutputCapability) {
		c.add(to.NamePlace, "", "binding %q (%s) has no output", to.Binding, def.Type)
		return
	}
	operation := operationOf(to)
	// Without a list the component itself tells its operations when it is open.
	if def.About.Operations != nil && !slices.Contains(def.About.Operations, operation) {
		c.add(to.NamePlace, "use one of "+strings.Join(def.About.Operations, ", "), "binding %q (%s) has no operation %q", to.Binding, def.Type, operation)
	}
}

// Load reads a configuration and checks it whole. The problems are in the order
// of files, lines and columns.
func Load(list component.Finder, o config.Options) (*config.Set, config.Problems) {
	set, problems := config.Load(o)
	if set != nil {
		problems = append(problems, Check(list, set)...)
	}
	slices.SortStableFunc(problems, func(a, b config.Problem) int {
		return cmp.Or(strings.Compare(a.Place.File, b.Place.File),
			cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column))
	})
	return set, problems
}

// Report reads a configuration, checks it whole and writes for people what is
// wrong with it, what is not used and what there is. It tells whether nothing
// is wrong; the error is that of writing.
func Report(w io.Writer, list component.Finder, o config.Options) (sound bool, err error) {
	set, problems := Load(list, o)
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%s\n", p)
	}
	for _, s := range set.Skipped {
		fmt.Fprintf(&b, "note: %s\n", s)
	}
	if len(problems) > 0 {
		fmt.Fprintf(&b, "\n%s", Count(len(problems), "problem"))
		if n := len(set.Skipped); n > 0 {
			fmt.Fprintf(&b, ", %s", Count(n, "note"))
		}
		b.WriteByte('\n')
	} else {
		fmt.Fprintf(&b, "%s, %s, %s", Count(len(set.Components), "component"),
			Count(len(set.Subscriptions), "subscription"), Count(len(set.Pipelines), "pipeline"))
		if n := len(set.Resiliencies); n > 0 {
			fmt.Fprintf(&b, ", %s", Count(n, "resiliency document"))
		}
		if n := len(set.HTTPEndpoints); n > 0 {
			fmt.Fprintf(&b, ", %s", Count(n, "HTTPEndpoint"))
		}
		b.WriteString(": no problems\n")
	}
	_, err = io.WriteString(w, b.String())
	return len(problems) == 0, err
}

// Count puts a number before a noun, as in "1 problem" and "2 problems".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
