// Package access decides who may call what of an app: Dapr's
// Configuration.spec.accessControl.
//
// The runtime makes a [List] of the configuration and hands it to a [Guard],
// which may get another one at any time. Whoever is about to hand a call to the
// app asks the Guard, with the identity that the caller's connection proved, the
// path that is dispatched and the verb.
//
// It promises that the path it looks at is the one that [message.Path] returned,
// that is the one which the app gets and the log shows; that what a rule denies is
// denied in every spelling that an app may take for the same, and what it allows
// only in its own; and that a call whose caller nobody vouches for is decided by
// the default action alone.
package access

import (
	"cmp"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
)

// Call is a call that is about to be handed to the app.
type Call struct {
	// Caller is who calls; the zero value: nobody proved who it is.
	Caller identity.ID
	// Own tells that it is the app that calls itself, through its own sidecar.
	Own bool
	// Path is what [message.Path] returned.
	Path string
	// Verb is the HTTP method; empty when a call over gRPC has none.
	Verb string
}

// List is what a configuration says. It does not change.
type List struct {
	allow    bool // what happens to a call that no policy decides
	http     bool
	own      identity.ID
	policies map[identity.ID]policy
}

// policy is about the calls of one app.
type policy struct {
	allow bool
	rules []rule // those that count first, first
}

// rule is an operation for one verb.
type rule struct {
	pattern pattern
	verb    string // "*": any
	allow   bool
	below   bool // what stands below a path that is denied, not a path that was written
}

// New makes a list for an app, which speaks HTTP or gRPC. It returns nil, which
// allows every call, when c is no access control. Own is who the app is.
func New(c config.AccessControl, own identity.ID, http bool) *List {
	if c.Action == "" {
		return nil
	}
	l := &List{allow: c.Action == config.Allow, http: http, own: own, policies: make(map[identity.ID]policy, len(c.Policies))}
	for _, p := range c.Policies {
		id := identity.ID{TrustDomain: p.TrustDomain, Namespace: p.Namespace, App: p.App}
		l.policies[id] = l.policy(p)
	}
	return l
}

func (l *List) policy(p config.AccessPolicy) policy {
	out := policy{allow: l.allow}
	if p.Action != "" {
		out.allow = p.Action == config.Allow
	}
	for _, o := range p.Operations {
		path, err := l.pattern(o.Path)
		if err != nil {
			continue // Pattern told it, and an error keeps the configuration from being used
		}
		deny := o.Action != config.Allow
		for _, verb := range l.verbs(o) {
			out.rules = append(out.rules, rule{pattern: path, verb: verb, allow: !deny})
			if below, ok := path.below(); ok && deny {
				out.rules = append(out.rules, rule{pattern: below, verb: verb, below: true})
			}
		}
	}
	slices.SortStableFunc(out.rules, rule.compare)
	return out
}

// verbs are those that an operation counts for. A gRPC app is called without one.
// An operation that names none opens nothing of an app that speaks HTTP, as under
// Dapr, and closes all.
func (l *List) verbs(o config.AccessOperation) []string {
	switch {
	case !l.http, len(o.Verbs) == 0 && o.Action != config.Allow:
		return []string{"*"}
	}
	return o.Verbs
}

// compare says which of two rules that match counts: the one with the narrower
// path, then the one that was written, then the one that names the verb, then the
// one that denies.
func (r rule) compare(other rule) int {
	return cmp.Or(
		r.pattern.compare(other.pattern),
		first(other.below, r.below),
		first(r.verb != "*", other.verb != "*"),
		first(!r.allow, !other.allow),
	)
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// Allows tells whether a call may go on. A nil list allows every call. A call of
// the app's own is decided by the policy that names the app, if there is one: no
// sidecar keeps an app from calling itself.
func (l *List) Allows(c Call) bool {
	if l == nil {
		return true
	}
	caller := c.Caller
	if c.Own {
		caller = l.own
	}
	p, ok := l.policies[caller]
	if !ok {
		return l.allow || c.Own
	}
	return p.allows(c, l.http)
}

func (p policy) allows(c Call, http bool) bool {
	path := message.Plain(c.Path)
	verb := strings.ToUpper(c.Verb) // some servers take get for GET
	if http {
		path = strings.ToLower(path)
	}
	exact := steps(path)
	bare := bareSteps(exact)
	for _, r := range p.rules {
		if r.verb != "*" && r.verb != verb {
			continue
		}
		if r.pattern.match(exact) || !r.allow && r.pattern.match(bare) {
			return r.allow
		}
	}
	return p.allow
}

// Pattern finds what is wrong with the path of an operation: an error of kind
// invalid for one that no call can have.
func Pattern(path string) error {
	_, err := (&List{}).pattern(path)
	return err
}

// pattern reads the path of an operation.
func (l *List) pattern(path string) (pattern, error) {
	read, err := message.Path(path)
	if err != nil {
		return nil, fault.Wrap(err, "read operation: no call can have its path")
	}
	plain := message.Plain(read)
	if l.http {
		plain = strings.ToLower(plain)
	}
	return newPattern(plain), nil
}
