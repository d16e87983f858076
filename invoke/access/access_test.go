package access_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/access"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
)

// The callers of the tests; callee is the app that is called.
var (
	shop    = identity.ID{TrustDomain: "public", Namespace: "default", App: "shop"}
	other   = identity.ID{TrustDomain: "public", Namespace: "default", App: "other"}
	staging = identity.ID{TrustDomain: "public", Namespace: "staging", App: "shop"}
	foreign = identity.ID{TrustDomain: "example.org", Namespace: "default", App: "shop"}
	callee  = identity.ID{TrustDomain: "public", Namespace: "default", App: "callee"}
	nobody  = identity.ID{}
)

// read makes a list of what stands below spec.accessControl.
func read(t testing.TB, text string, http bool) *access.List {
	t.Helper()
	var doc strings.Builder
	doc.WriteString("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  accessControl:\n")
	for line := range strings.Lines(text) {
		doc.WriteString("    " + line)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(doc.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	set, problems := config.Load(config.Options{AppID: "callee", Configs: []string{file}})
	if errs, _ := problems.Split(false); len(errs) > 0 {
		t.Fatal(errs)
	}
	return access.New(set.Configuration.Access, callee, http)
}

// allows tells what a list says about a call over HTTP: "GET /path".
func allows(t testing.TB, l *access.List, caller identity.ID, call string) bool {
	t.Helper()
	verb, raw, _ := strings.Cut(call, " ")
	path, err := message.Path(raw)
	if err != nil {
		t.Fatal(err)
	}
	return l.Allows(access.Call{Caller: caller, Path: path, Verb: verb})
}

func TestWhoeverNoPolicyNamesGetsTheDefault(t *testing.T) {
	t.Parallel()
	const policies = `
policies:
- {appId: shop, namespace: default, trustDomain: public, defaultAction: %s}
`
	for action, opposite := range map[string]string{"allow": "deny", "deny": "allow"} {
		l := read(t, "defaultAction: "+action+strings.Replace(policies, "%s", opposite, 1), true)
		for _, id := range []identity.ID{other, staging, foreign, nobody, callee} {
			if allows(t, l, id, "GET /x") != (action == "allow") {
				t.Errorf("%s: not decided by the default %s", id, action)
			}
		}
		if allows(t, l, shop, "GET /x") != (opposite == "allow") {
			t.Errorf("shop: not decided by its own %s", opposite)
		}
	}
	l := read(t, strings.Replace(policies, "%s", "Allow", 1), true)
	if !allows(t, l, shop, "GET /x") || allows(t, l, nobody, "GET /x") {
		t.Error("with policies and no default action the default is to deny")
	}
	for _, nothing := range []string{"trustDomain: public", "policies: []"} {
		if l := read(t, nothing, true); l != nil || !allows(t, l, nobody, "GET /x") {
			t.Errorf("%s: it says nothing, so everything is allowed", nothing)
		}
	}
}

// rows are calls by shop and what comes of them.
type rows map[string]bool

// operations are the operations of shop's policy, and what comes of them.
type operations struct {
	text string
	want rows
}

func someOperations() map[string]operations {
	return map[string]operations{
		"an exact path": {`
  - {name: /orders, httpVerb: [GET, post], action: allow}
`, rows{
			"GET /orders": true, "POST /orders": true, "get /orders": true, "PUT /orders": false, "GET /Orders": true, "GET /orders/": true,
			"GET /orders/7": false, "GET /order": false, "GET /orders;a=b": false, "GET /": false, "GET orders": true, "GET /%6Frders": true,
		}},
		"no verb opens nothing and closes everything": {`
  - {name: /open, action: allow}
  - {name: /**, httpVerb: ["*"], action: allow}
  - {name: /closed, action: deny}
`, rows{"GET /open": true, "GET /closed": false, "PUT /closed": false}},
		"what is denied is denied below and in every spelling": {`
  - {name: /**, httpVerb: ["*"], action: allow}
  - {name: /admin, httpVerb: ["*"], action: deny}
`, rows{
			"GET /admin": false, "GET /ADMIN": false, "GET /admin/": false, "GET /admin/users": false, "GET /admin;x=1": false,
			"GET /admin;x/users;y": false, "GET /%61dmin": false, "GET /admin%2Fusers": false, "GET /administrator": true, "GET /x/admin": true,
			"GET /admin%20": true,
		}},
		"the narrower path counts, in any order": {`
  - {name: /**, httpVerb: ["*"], action: deny}
  - {name: /a/*, httpVerb: ["*"], action: allow}
  - {name: /a/secret, httpVerb: ["*"], action: deny}
  - {name: /a/secret/hint, httpVerb: ["*"], action: allow}
  - {name: /b, httpVerb: ["*"], action: deny}
  - {name: /b/**, httpVerb: ["*"], action: allow}
  - {name: /a/s*t, httpVerb: ["*"], action: allow}
`, rows{
			"GET /a": true, "GET /a/": true, "GET /a/x": true, "GET /a/x/y": false, "GET /a/secret": false, "GET /a/secret/x": false,
			"GET /a/secret/hint": true, "GET /a/set": true, "GET /b": false, "GET /b/c": true, "GET /": false, "GET /c": false,
		}},
		"wildcards": {`
  - {name: "/*/items", httpVerb: [GET], action: allow}
  - {name: "/v*/x", httpVerb: [GET], action: allow}
  - {name: "/**/end", httpVerb: [GET], action: allow}
  - {name: "/deep/**", httpVerb: [GET], action: allow}
`, rows{
			"GET /a/items": true, "GET /a/b/items": false, "GET /items": false, "GET /v1/x": true, "GET /v/x": true, "GET /w1/x": false,
			"GET /end": true, "GET /a/b/c/end": true, "GET /a/end/b": false, "GET /deep": true, "GET /deep/a/b": true, "GET /deeper": false,
		}},
		"a verb that is named counts more than any": {`
  - {name: /a, httpVerb: ["*"], action: allow}
  - {name: /a, httpVerb: [DELETE], action: deny}
  - {name: /b, httpVerb: [GET], action: allow}
  - {name: /b, httpVerb: [GET], action: deny}
`, rows{"GET /a": true, "DELETE /a": false, "delete /a": false, "GET /b": false}},
		"the root": {`
  - {name: /**, httpVerb: ["*"], action: allow}
  - {name: /, httpVerb: ["*"], action: deny}
`, rows{"GET /": false, "GET /x": true}},
		"an action that is not said denies": {`
  - {name: /**, httpVerb: ["*"], action: allow}
  - {name: /a, httpVerb: ["*"]}
`, rows{"GET /a": false, "GET /b": true}},
	}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	const start = "defaultAction: deny\npolicies:\n- appId: shop\n  namespace: default\n  operations:\n"
	for name, row := range someOperations() {
		l := read(t, start+strings.TrimPrefix(row.text, "\n"), true)
		for call, want := range row.want {
			if got := allows(t, l, shop, call); got != want {
				t.Errorf("%s: %s: %v, want %v", name, call, got, want)
			}
		}
		if allows(t, l, nobody, "GET /orders") {
			t.Errorf("%s: it holds for a caller whom nobody vouches for", name)
		}
	}
}

// A gRPC app has methods, not verbs, and its methods have one spelling.
func TestOperationsOfAGRPCApp(t *testing.T) {
	t.Parallel()
	l := read(t, `defaultAction: deny
policies:
- appId: shop
  namespace: default
  operations:
  - {name: getOrder, httpVerb: [GET], action: allow}
  - {name: /shop.Orders/*, action: allow}
  - {name: /shop.Orders/Delete, action: deny}
`, false)
	for call, want := range (rows{
		" getOrder": true, "POST getOrder": true, " GetOrder": false, " /shop.Orders/Get": true, " /shop.Orders/Delete": false, " /shop.Stock/Get": false,
	}) {
		if got := allows(t, l, shop, call); got != want {
			t.Errorf("%s: %v, want %v", call, got, want)
		}
	}
}

func TestTheAppItself(t *testing.T) {
	t.Parallel()
	own := access.Call{Own: true, Path: "x", Verb: "GET"}
	if l := read(t, "defaultAction: deny", true); !l.Allows(own) {
		t.Error("an app may call itself where no policy names it")
	}
	l := read(t, "defaultAction: allow\npolicies: [{appId: callee, namespace: default, defaultAction: deny}]", true)
	if l.Allows(own) {
		t.Error("a policy that names the app itself does not hold")
	}
}

func logger(b *strings.Builder) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestGuard(t *testing.T) {
	t.Parallel()
	var none *access.Guard
	if err := none.Check(access.Call{Path: "x"}); err != nil {
		t.Error(err)
	}
	log := new(strings.Builder)
	g := access.NewGuard(logger(log))
	if err := g.Check(access.Call{Path: "x"}); err != nil {
		t.Error(err)
	}
	g.Set(read(t, "defaultAction: deny", true))
	for caller, want := range map[identity.ID]string{
		shop:   "access control policy has denied access to id: spiffe://public/ns/default/shop operation: a b/c verb: POST",
		nobody: "access control policy has denied access to id: (unknown) operation: a b/c verb: POST",
	} {
		err := g.Check(access.Call{Caller: caller, Path: "a%20b/c", Verb: "POST"})
		if fault.KindOf(err) != fault.Denied || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), `operation="a b/c"`) {
		t.Errorf("logged %s", log)
	}
	g.Set(nil)
	if err := g.Check(access.Call{Path: "x"}); err != nil {
		t.Error(err)
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	g := access.NewGuard(logger(new(strings.Builder)))
	g.Set(read(t, "defaultAction: deny\npolicies: [{appId: shop, namespace: default, operations: [{name: /shop.Orders/*, action: allow}]}]", false))
	for method, want := range map[string]fault.Kind{
		"/shop.Orders/Get": 0, "/shop.Orders/%47et": fault.Invalid, "shop.Orders/Get": fault.Invalid, "//shop.Orders/Get": fault.Invalid,
		"/shop.Orders/../shop.Stock/Get": fault.Invalid, "/shop.Stock/Get": fault.Denied, "/shop.Orders/Get?x": fault.Invalid, "": fault.Invalid,
		"/dapr.proto.runtime.v1.AppCallback/OnTopicEvent": fault.Denied, "/dapr.proto.runtime.v1.AppCallbackAlpha/OnBulkTopicEventAlpha1": fault.Denied,
	} {
		if err := g.CheckService(shop, false, method); err != nil && fault.KindOf(err) != want || err == nil && want != 0 {
			t.Errorf("%s: %v, want kind %v", method, err, want)
		}
	}
	var none *access.Guard
	if err := none.CheckService(nobody, true, "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent"); fault.KindOf(err) != fault.Denied {
		t.Errorf("events can be handed to the app: %v", err)
	}
}
