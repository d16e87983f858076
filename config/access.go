package config

import (
	"fmt"
	"slices"
	"strings"
)

// defaultTrustDomain is Dapr's.
const defaultTrustDomain = "public"

// accessControl reads spec.accessControl. A slip must not open what was to be
// closed: what Dapr would leave out unseen is an error, an action that is not said
// denies.
func (r *reader) accessControl(spec *fields) AccessControl {
	f := spec.table("accessControl")
	f.vital = []string{"defaultAction", "policies"}
	a := AccessControl{Action: f.action("defaultAction"), TrustDomain: f.trustDomain(), Place: f.at}
	items := f.items("policies")
	for i, n := range items {
		p := r.accessPolicy(n, fmt.Sprintf("spec.accessControl.policies[%d]", i))
		if slices.ContainsFunc(a.Policies, p.sameCaller) {
			r.hard(p.Place, "put its operations into one policy", "spec.accessControl.policies[%d] is the second of app %q in namespace %q of trust domain %q",
				i, cut(p.App, 80), cut(p.Namespace, 80), cut(p.TrustDomain, 80))
		}
		a.Policies = append(a.Policies, p)
	}
	f.done()
	switch {
	case f.n == nil || a.Action != "":
	case len(items) > 0:
		a.Action = Deny
	default:
		r.lenient(f.at, "add defaultAction or policies", "spec.accessControl says nothing about calls: all are allowed")
	}
	return a
}

func (p AccessPolicy) sameCaller(other AccessPolicy) bool {
	return p.App == other.App && p.Namespace == other.Namespace && p.TrustDomain == other.TrustDomain
}

// accessPolicy reads one policy.
func (r *reader) accessPolicy(n *node, path string) AccessPolicy {
	f := r.table(n, path, n.at, false)
	f.vital = []string{"defaultAction", "operations"}
	p := AccessPolicy{App: f.need("appId"), Namespace: f.need("namespace"), TrustDomain: f.trustDomain(), Action: f.action("defaultAction"), Place: n.at}
	for i, n := range f.items("operations") {
		p.Operations = append(p.Operations, r.accessOperation(n, fmt.Sprintf("%s.operations[%d]", path, i)))
	}
	f.done()
	return p
}

// accessOperation reads one operation.
func (r *reader) accessOperation(n *node, path string) AccessOperation {
	f := r.table(n, path, n.at, false)
	o := AccessOperation{Path: f.need("name"), Action: f.action("action"), Place: f.place("name")}
	for _, verb := range f.texts("httpVerb") {
		upper := strings.ToUpper(verb)
		if !slices.Contains(accessVerbs(), upper) {
			hint := DidYouMean(verb, accessVerbs())
			r.lenient(f.place("httpVerb"), hint, "%s has %q, which is no verb of HTTP", f.name("httpVerb"), cut(verb, 80))
		}
		o.Verbs = append(o.Verbs, upper)
	}
	clean := f.done()
	if o.Action == "" && clean {
		r.lenient(f.at, "add action: allow or action: deny", "%s.action is missing: it denies", path)
	}
	if o.Action == "" {
		o.Action = Deny
	}
	if o.Action == Allow && len(o.Verbs) == 0 && clean {
		r.lenient(f.at, `write httpVerb: ["*"] for every verb`, "%s.httpVerb is missing: an app that speaks HTTP is not opened by it", path)
	}
	return o
}

func accessVerbs() []string {
	return []string{"*", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
}

// trustDomain reads the field of that name, which is in lower case in every
// identity.
func (f *fields) trustDomain() string {
	domain := f.text("trustDomain")
	if domain == "" {
		return defaultTrustDomain
	}
	return domain
}

// action reads a field that is allow or deny, in any case; absent is empty.
func (f *fields) action(field string) string {
	word := strings.ToLower(strings.TrimSpace(f.text(field)))
	if word != "" && word != Allow && word != Deny {
		f.r.hard(f.place(field), DidYouMean(word, []string{Allow, Deny}), "%s is %q, want allow or deny", f.name(field), cut(word, 80))
		return Deny
	}
	return word
}
