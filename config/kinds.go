package config

import (
	"slices"
	"strings"
)

// The document kinds that are read, by their apiVersions, the usual one first.
const (
	daprV1   = "dapr.io/v1alpha1"
	daprV2   = "dapr.io/v2alpha1"
	penstock = "penstock.dev/v1"
)

func ourKinds() []string {
	return []string{"Component", "Subscription", "Configuration", "Resiliency", "HTTPEndpoint", "Pipeline"}
}

// daprKinds are those that Dapr has and this version does not use.
func daprKinds() []string {
	return []string{"MCPServer", "WorkflowAccessPolicy"}
}

// versionsOf lists the apiVersions of one of our kinds.
func versionsOf(kind string) []string {
	switch kind {
	case "Pipeline":
		return []string{penstock}
	case "Subscription":
		return []string{daprV2, daprV1}
	}
	return []string{daprV1}
}

// document reads one document, whatever it is.
func (r *reader) document(n *node) {
	if n.kind != tableNode {
		r.lenient(n.at, "it needs apiVersion, kind, metadata and spec", "the document is %s, want a mapping", n.what())
		return
	}
	peek := r.table(n, "", n.at, false)
	version, kind := peek.scalarText("apiVersion"), peek.scalarText("kind")
	known := append(ourKinds(), daprKinds()...)
	switch {
	case kind == "" && group(version) != "":
		r.hard(n.at, "add kind: Component, Subscription, Configuration, Resiliency, HTTPEndpoint or Pipeline", "the document has no kind")
	case slices.Contains(daprKinds(), kind) && (version == "" || group(version) == "dapr.io"):
		r.skip(n, kind, "this kind is not used by this version")
	case !slices.Contains(ourKinds(), kind):
		r.strange(peek, version, kind, known)
	case slices.Contains(versionsOf(kind), version):
		r.ours(n, version, kind)
	default:
		r.version(peek, version, kind)
	}
}

// scalarText is text without complaints.
func (f *fields) scalarText(name string) string {
	if n := f.get(name); n != nil && n.kind == scalarNode {
		return n.text
	}
	return ""
}

// group returns the group of an apiVersion when it is one whose kinds we know.
func group(version string) string {
	g, _, _ := strings.Cut(version, "/")
	if g == "dapr.io" || g == "penstock.dev" {
		return g
	}
	return ""
}

// strange deals with a document of a kind that nobody knows.
func (r *reader) strange(peek *fields, version, kind string, known []string) {
	near := Nearest(kind, known)
	switch g := group(version); {
	case g == "penstock.dev", g != "" && near != "":
		r.hard(peek.place("kind"), DidYouMean(kind, known), "kind %q is not known", kind)
	case g != "":
		r.skip(peek.n, kind, "this kind is not known")
	case kind == "":
		r.skip(peek.n, kind, "the document has no kind")
	default:
		r.skip(peek.n, kind, "apiVersion "+version+" is not read here")
	}
}

// version deals with one of our kinds under an apiVersion it does not have.
// Dapr looks at the kind alone when it reads Components, so they are read.
func (r *reader) version(peek *fields, version, kind string) {
	want := versionsOf(kind)
	near := Nearest(version, want)
	if version != "" && group(version) == "" && near == "" {
		r.skip(peek.n, kind, "apiVersion "+version+" is not read here")
		return
	}
	p := Problem{Place: peek.place("apiVersion"), Text: "kind " + kind + " has no apiVersion " + version, Hint: "write " + strings.Join(want, " or ")}
	if version == "" {
		p.Text = "the document has no apiVersion"
	}
	p.Lenient = len(want) == 1 && want[0] == daprV1
	r.add(p)
	if p.Lenient {
		r.ours(peek.n, daprV1, kind)
	}
}

// skip notes a document that is not used.
func (r *reader) skip(n *node, kind, why string) {
	meta := (&fields{r: r, n: n, read: map[string]bool{}}).get("metadata")
	name := ""
	if meta != nil && meta.kind == tableNode {
		name = (&fields{r: r, n: meta, read: map[string]bool{}}).scalarText("name")
	}
	r.set.Skipped = append(r.set.Skipped, Skipped{Kind: kind, Name: name, Why: why, Place: n.at})
}

// ours reads a document of a known kind and version.
func (r *reader) ours(n *node, version, kind string) {
	before := len(r.problems)
	r.secret, r.covered, r.filled = nil, nil, nil
	defer func() {
		for i := range r.problems[before:] {
			p := &r.problems[before+i]
			r.hide(&p.Place)
			for _, v := range r.filled {
				if v == "" {
					continue
				}
				p.Text, p.Hint = strings.ReplaceAll(p.Text, v, "***"), strings.ReplaceAll(p.Hint, v, "***")
			}
		}
	}()
	d := r.table(n, "", n.at, kind == "Pipeline")
	d.skip("apiVersion", "kind", "status")
	meta := d.table("metadata")
	h := header{kind: kind, name: meta.need("name"), at: n.at, nameAt: meta.place("name")}
	if h.name != "" && !goodName(h.name) {
		r.hard(meta.place("name"), `use letters, digits, "-", "." and "_", at most 253`, "metadata.name %q is not a good name", cut(h.name, 80))
	}
	namespace := meta.text("namespace")
	meta.skip("labels", "annotations", "generateName", "uid", "resourceVersion", "generation", "creationTimestamp",
		"deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers", "managedFields", "selfLink")
	meta.done()
	if kind != "Configuration" {
		h.scopes = d.texts("scopes")
	}
	put := r.body(d, h, version)
	d.done()
	switch {
	case !r.draft && (kind == "Configuration") != r.config:
		for i := range r.problems[before:] {
			r.problems[before+i].Lenient = true // a mistake in what nobody uses
		}
		why := "only Configuration documents are read from a configuration file"
		if kind == "Configuration" {
			why = "a Configuration is only read from a configuration file"
		}
		r.skip(n, kind, why)
	case namespace != "" && r.o.Namespace != "" && namespace != r.o.Namespace:
		r.skip(n, kind, "it is for namespace "+namespace)
		r.elsewhere(h)
	case put == nil || kind != "Configuration" && !r.take(h):
	case !r.sound(before):
		r.broken(put)
	case kind != "Configuration" || r.taken(h.name):
		put()
	}
}

// broken puts a document with errors where only checks look.
func (r *reader) broken(put func()) {
	if r.set.Broken == nil {
		r.set.Broken = &Set{}
	}
	good := r.set
	r.set = good.Broken
	put()
	r.set = good
}

// sound tells whether only lenient problems came up since the count was taken.
func (r *reader) sound(since int) bool {
	errs, _ := r.problems[since:].Split(false)
	return len(errs) == 0
}

// body reads the rest of a document and returns what puts it into the set, or
// nil when it is of no use.
func (r *reader) body(d *fields, h header, version string) (put func()) {
	switch h.kind {
	case "Component":
		c := r.component(d, h)
		return func() { r.set.Components = append(r.set.Components, c) }
	case "Subscription":
		s, usable := r.subscription(d, h, version)
		if !usable {
			return nil
		}
		return func() { r.set.Subscriptions = append(r.set.Subscriptions, s) }
	case "Resiliency":
		p := r.resiliency(d, h)
		return func() { r.set.Resiliencies = append(r.set.Resiliencies, p) }
	case "HTTPEndpoint":
		e := r.httpEndpoint(d, h)
		return func() { r.set.HTTPEndpoints = append(r.set.HTTPEndpoints, e) }
	case "Pipeline":
		p := r.pipeline(d, h)
		return func() { r.set.Pipelines = append(r.set.Pipelines, p) }
	}
	return r.configuration(d, h)
}
