package config

import (
	"fmt"
	"os"
	"strings"
)

// configuration reads a Configuration document and returns what merges it into
// the set: each field that it has wins over earlier files.
func (r *reader) configuration(d *fields, h header) (put func()) {
	if r.config || r.draft {
		r.expandNames(d.n)
		r.expand(d.n)
	}
	spec := d.table("spec")
	spec.vital = []string{"accessControl"} // without it everybody may call
	unused := spec.skip("features", "wasm", "workflow", "mcp")
	var c Configuration
	components := spec.table("components")
	c.Denied = components.texts("deny")
	components.done()
	secrets := spec.table("secrets")
	for i, n := range secrets.items("scopes") {
		c.SecretScopes = append(c.SecretScopes, r.secretScope(n, i))
	}
	secrets.done()
	surface := r.surface(spec)
	handlers := r.handlers(spec)
	names := r.nameResolution(spec)
	mtls := r.mtls(spec)
	tracing := r.tracing(spec)
	metric, hasMetric := r.metric(spec)
	access := r.accessControl(spec)
	spec.done()
	return func() {
		into := &r.set.Configuration
		into.Place = h.at
		if components.get("deny") != nil {
			into.Denied = c.Denied
		}
		if secrets.get("scopes") != nil {
			into.SecretScopes = c.SecretScopes
		}
		surface(into)
		handlers(into)
		if spec.get("mtls") != nil {
			into.MTLS = mtls
		}
		if spec.get("tracing") != nil {
			into.Tracing = tracing
		}
		if hasMetric {
			into.Metric = metric
		}
		if spec.get("nameResolution") != nil {
			into.Names = names
		}
		if spec.get("accessControl") != nil {
			into.Access = access
		}
		if len(unused) > 0 {
			r.set.Skipped = append(r.set.Skipped, Skipped{
				Kind: h.kind, Name: h.name, Place: h.at,
				Why: "not used by this version: spec." + strings.Join(unused, ", spec."),
			})
		}
	}
}

func (r *reader) secretScope(n *node, i int) SecretScope {
	f := r.table(n, fmt.Sprintf("spec.secrets.scopes[%d]", i), n.at, false)
	s := SecretScope{Store: f.need("storeName"), DefaultAccess: strings.ToLower(f.text("defaultAccess"))}
	switch s.DefaultAccess {
	case "":
		s.DefaultAccess = "allow"
	case "allow", "deny":
	default:
		f.wrong(f.get("defaultAccess"), "defaultAccess", "allow or deny")
	}
	s.Allowed = f.texts("allowedSecrets")
	s.Denied = f.texts("deniedSecrets")
	f.done()
	return s
}

// shortestSecret is the length of the shortest value of the environment that may be
// a secret; shorter ones are words such as http.
const shortestSecret = 8

// expand puts environment variables into every text below n. It works on values,
// not on the file, so what a variable holds cannot change the structure.
func (r *reader) expand(n *node) {
	if n.own {
		return
	}
	for _, v := range n.list {
		r.expand(v)
	}
	for _, p := range n.pairs {
		r.expand(p.value)
	}
	if n.kind != scalarNode || !strings.Contains(n.text, "$") {
		return
	}
	n.text = os.Expand(n.text, func(name string) string {
		value, ok := r.o.Env(name)
		if !ok {
			r.lenient(n.at, "", "environment variable %s is not set", cut(name, 80))
		}
		if len(value) >= shortestSecret {
			r.filled = append(r.filled, value)
		}
		return value
	})
}
