package config

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Defaults and bounds of a Pipeline.
const (
	pipelineTimeout = time.Minute
	keyedLanes      = 16
	maxLanes        = 1024
	maxTargets      = 64
	maxSteps        = 64
)

func (r *reader) pipeline(d *fields, h header) Pipeline {
	p := Pipeline{Name: h.name, Scopes: h.scopes, Place: h.at}
	spec := d.table("spec")
	if from := spec.get("from"); from != nil {
		p.From = r.endpoint(from, "spec.from", "binding", "pubsub")
	} else {
		spec.missing("from")
	}
	p.OrderingKey = spec.expr("orderingKey")
	lanes := 1
	if p.OrderingKey.Text != "" {
		lanes = keyedLanes
	}
	p.Concurrency = spec.int("concurrency", lanes, 1, maxLanes)
	p.MaxInFlight = spec.int("maxInFlight", 0, 1, maxWindow)
	p.Dedupe = r.dedupe(spec)
	p.Timeout = spec.duration("timeout", pipelineTimeout)
	for i, n := range r.bounded(spec, "steps", maxSteps) {
		p.Steps = append(p.Steps, r.step(n, fmt.Sprintf("spec.steps[%d]", i)))
	}
	targets := r.bounded(spec, "to", maxTargets)
	for i, n := range targets {
		p.To = append(p.To, r.endpoint(n, fmt.Sprintf("spec.to[%d]", i), "binding", "pubsub", "app"))
	}
	if to := spec.get("to"); to == nil {
		spec.missing("to")
	} else if to.kind == listNode && len(targets) == 0 {
		r.hard(to.at, "", "spec.to is empty, want at least one target")
	}
	if n := spec.get("deadLetter"); n != nil {
		p.DeadLetter = new(r.endpoint(n, "spec.deadLetter", "pubsub", "binding"))
	}
	if n := spec.get("retry"); n != nil {
		p.Retry = r.retry(n)
	}
	spec.done()
	return p
}

func (r *reader) bounded(f *fields, name string, most int) []*node {
	list := f.items(name)
	if len(list) > most {
		r.hard(list[most].at, "", "%s has %d entries, at most %d are allowed", f.name(name), len(list), most)
		return list[:most]
	}
	return list
}

// expr reads a field that holds an expression.
func (f *fields) expr(name string) Expr {
	text := f.text(name)
	if text == "" {
		return Expr{}
	}
	return Expr{Text: text, Place: f.r.span(f.place(name), text)}
}

// endpoint reads one end of a pipeline. Each of the kinds is either a name, with
// what belongs to it beside, or a mapping that holds all.
func (r *reader) endpoint(n *node, path string, kinds ...string) (e Endpoint) {
	f := r.table(n, path, n.at, true)
	e.Place = n.at
	var found []string
	for _, kind := range kinds {
		v := f.get(kind)
		if v == nil {
			continue
		}
		found = append(found, kind)
		at := f
		if v.kind == tableNode {
			at = f.table(kind)
			e.read(at, kind, map[string]string{"app": "route"}[kind])
			at.done()
			continue
		}
		e.read(at, kind, kind)
	}
	switch clean := f.done(); {
	case len(found) > 1:
		r.hard(n.at, "keep one of them", "%s has more than one of %s", path, list(kinds))
	case len(found) == 0 && clean:
		r.hard(n.at, "", "%s has none of %s", path, list(kinds))
	}
	return e
}

// read takes the fields of one kind of endpoint; nameField holds its name.
func (e *Endpoint) read(f *fields, kind, nameField string) {
	if nameField == "" {
		nameField = "name"
	}
	name := f.need(nameField)
	e.NamePlace = f.place(nameField)
	switch kind {
	case "binding":
		e.Binding = name
		e.Operation = f.text("operation")
		e.Metadata, e.MetadataPlaces = f.values("metadata")
	case "pubsub":
		e.PubSub = name
		e.Topic = f.need("topic")
		e.TopicPlace = f.r.span(f.place("topic"), e.Topic)
		e.Metadata, e.MetadataPlaces = f.values("metadata")
	case "app":
		e.Route = name
	}
}

func list(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// attribute tells whether a word is the name of an attribute, as CloudEvents spells
// them.
func attribute(word string) bool {
	return word != "" && len(word) <= 64 && !strings.ContainsFunc(word, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// transform reads the program of a transform step.
func (f *fields) transform() Expr {
	n := f.get("transform")
	if n.kind == scalarNode {
		f.r.hard(n.at, "write {jq: PROGRAM}", "%s is %s, want a mapping", f.name("transform"), n.what())
		return Expr{}
	}
	t := f.table("transform")
	e := t.expr("jq")
	if t.done() {
		t.need("jq")
	}
	return e
}

// attributes reads the attributes that a set step gives and their expressions.
func (r *reader) attributes(f *fields) map[string]Expr {
	if f.n == nil {
		return nil
	}
	out := make(map[string]Expr, len(f.n.pairs))
	for _, p := range f.n.pairs {
		if p.key == "specversion" || p.key == "data" || p.key == "data_base64" {
			r.hard(p.at, "set changes attributes; use transform for data", "%s.%s: this cannot be set", f.path, p.key)
			continue
		}
		if !attribute(p.key) {
			r.hard(p.at, "use lower-case letters and digits", "%s: %q cannot be the name of an attribute", f.path, cut(p.key, 80))
			continue
		}
		if e := f.expr(p.key); e.Text != "" {
			out[p.key] = e
		} else if p.value.kind == scalarNode {
			r.hard(p.at, `write '""' for an empty text`, "%s.%s has no expression", f.path, p.key)
		}
	}
	if len(out) == 0 && len(f.n.pairs) == 0 {
		r.hard(f.at, "", "%s names no attribute", f.path)
	}
	return out
}

func (r *reader) retry(n *node) Retry {
	f := r.table(n, "spec.retry", n.at, true)
	out := Retry{Policy: f.text("policy"), Place: n.at, Set: true}
	switch out.Policy {
	case "", "exponential", "constant":
	default:
		r.hard(f.place("policy"), DidYouMean(out.Policy, []string{"exponential", "constant"}),
			"spec.retry.policy is %q, want exponential or constant", cut(out.Policy, 80))
	}
	out.Duration = f.duration("duration", 0)
	out.MaxInterval = f.duration("maxInterval", 0)
	out.MaxRetries = f.int("maxRetries", DefaultRetries, -1, math.MaxInt32)
	f.done()
	return out
}
