package config

import (
	"fmt"
	"slices"
	"strings"
)

// surface reads spec.api and spec.logging and returns what merges them into a
// configuration: each list, and the block about logging, wins over earlier ones.
func (r *reader) surface(spec *fields) (put func(into *Configuration)) {
	f := spec.table("api")
	allowed, denied := r.apiRules(f, "allowed"), r.apiRules(f, "denied")
	f.done()
	logging := spec.table("logging")
	calls := logging.table("apiLogging")
	log := APILog{
		Enabled: calls.bool("enabled"), ObfuscateURLs: calls.bool("obfuscateURLs"), OmitHealthChecks: calls.bool("omitHealthChecks"),
	}
	calls.done()
	logging.done()
	return func(into *Configuration) {
		if f.get("allowed") != nil {
			into.API.Allowed = allowed
		}
		if f.get("denied") != nil {
			into.API.Denied = denied
		}
		if logging.get("apiLogging") != nil {
			into.APILog = log
		}
	}
}

func (r *reader) apiRules(f *fields, list string) []APIRule {
	var rules []APIRule
	for i, n := range f.items(list) {
		rules = append(rules, r.apiRule(n, fmt.Sprintf("spec.api.%s[%d]", list, i)))
	}
	return rules
}

// apiRule reads one rule. Dapr takes any words and a wrong one changes nothing,
// or everything, unseen; so they are taken here and named.
func (r *reader) apiRule(n *node, path string) APIRule {
	f := r.table(n, path, n.at, false)
	if f.n == nil {
		return APIRule{} // that it is no mapping is reported
	}
	rule := APIRule{Name: f.text("name"), Version: f.text("version"), Protocol: strings.ToLower(f.text("protocol"))}
	f.oneOf("protocol", rule.Protocol, []string{"http", "grpc"})
	f.oneOf("version", rule.Version, []string{
		"v1.0", "v1.0-alpha1", "v1.0-alpha2", "v1.0-beta1", "v1", "v1alpha1", "v1alpha2", "v1beta1", "v1.0-penstock",
	})
	group, _, _ := strings.Cut(rule.Name, "/")
	f.oneOf("name", group, apiGroups())
	f.done()
	return rule
}

// oneOf reports a word that is none of those known; it is used all the same.
func (f *fields) oneOf(field, word string, known []string) {
	switch {
	case slices.Contains(known, word):
	case word == "":
		f.r.lenient(f.place(field), "", "%s is missing", f.name(field))
	default:
		hint := DidYouMean(word, known)
		if hint == "" {
			hint = "use one of " + strings.Join(known, ", ")
		}
		f.r.lenient(f.place(field), hint, "%s %q is not known", f.name(field), cut(word, 80))
	}
}

// apiGroups are Dapr's words for groups of APIs, and ours.
func apiGroups() []string {
	return []string{
		"actors", "bindings", "configuration", "conversation", "crypto", "deadletters", "events", "healthz", "invoke", "jobs", "lock", "loglevels",
		"metadata", "publish", "routes", "secrets", "shutdown", "state", "subscribe", "subtlecrypto", "triggers", "unlock", "webhooks", "workflows",
	}
}
