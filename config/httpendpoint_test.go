package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
)

const endpointDoc = `apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: web}
spec:
  BaseURL: " https://example.com/base "
  headers:
  - {name: X-Plain, value: 7}
  - {name: X-Brace, value: "{appID}"}
  - {name: X-Secret, secretKeyRef: {name: one, key: two}}
  - {name: X-Env, envRef: REGION}
  clientTLS:
    rootCA: {value: pem}
    privateKey: {secretKeyRef: {name: key}}
    renegotiation: RenegotiateOnceAsClient
auth: {secretStore: vault}
scopes: [shop]
`

func parseEndpoint(t *testing.T, text string, o Options) (*Set, HTTPEndpoint) {
	t.Helper()
	o.Env = func(name string) (string, bool) { return "north", name == "REGION" }
	set, problems := Parse("web.yaml", []byte(text), o)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if len(set.HTTPEndpoints) != 1 {
		t.Fatalf("%d endpoints, skipped %v", len(set.HTTPEndpoints), set.Skipped)
	}
	return set, set.HTTPEndpoints[0]
}

func TestHTTPEndpoint(t *testing.T) {
	t.Parallel()
	_, e := parseEndpoint(t, endpointDoc, Options{AppID: "shop"})
	want := HTTPEndpoint{
		Name: "web", BaseURL: "https://example.com/base", SecretStore: "vault", Renegotiation: "RenegotiateOnceAsClient", Scopes: []string{"shop"},
		Headers: []Item{
			{Name: "X-Plain", Value: "7"},
			{Name: "X-Brace", Value: "{appID}"},
			{Name: "X-Secret", SecretRef: &SecretRef{"one", "two"}},
			{Name: "X-Env", Value: "north", Secret: true},
		},
		TLS: []Item{{Name: RootCA, Value: "pem"}, {Name: PrivateKey, SecretRef: &SecretRef{"key", "key"}}},
	}
	if diff := cmp.Diff(want, e, anywhere); diff != "" {
		t.Error(diff)
	}
	for what, places := range map[string][2]int{
		"baseUrl": {e.BaseURLPlace.Line, 5}, "header": {e.Headers[2].NamePlace.Line, 9}, "its value": {e.Headers[0].Place.Line, 7},
		"rootCA": {e.TLS[0].Place.Line, 12}, "store": {e.StorePlace.Line, 15},
	} {
		if places[0] != places[1] {
			t.Errorf("%s is in line %d, want %d", what, places[0], places[1])
		}
	}
	for _, o := range []Options{{AppID: "other"}, {AppID: "shop", Namespace: "here"}} {
		set, problems := Parse("web.yaml", []byte(strings.Replace(endpointDoc, "{name: web}", "{name: web, namespace: there}", 1)), o)
		if len(set.HTTPEndpoints) > 0 || problems.hard() > 0 {
			t.Errorf("%+v reads one that is for others: %v", o, problems)
		}
	}
}

func (ps Problems) hard() int {
	errs, _ := ps.Split(false)
	return len(errs)
}

func TestSecretsOfHTTPEndpoints(t *testing.T) {
	t.Parallel()
	_, e := parseEndpoint(t, endpointDoc, Options{AppID: "shop"})
	asked := map[string]int{}
	got, problems := ResolveEndpoint(e, func(store, name string) (map[string]string, error) {
		asked[store+"/"+name]++
		return map[string]string{"two": "2", "key": "k"}, nil
	})
	if len(problems) > 0 || got.Headers[2].Value != "2" || got.TLS[1].Value != "k" || !got.TLS[1].Secret || e.Headers[2].Value != "" || len(asked) != 2 {
		t.Errorf("%+v %v, asked %v", got, problems, asked)
	}
	down := fault.New(fault.Unavailable, "down")
	_, problems = ResolveEndpoint(e, func(string, string) (map[string]string, error) { return nil, down })
	if len(problems) != 2 || !fault.Retriable(problems) || !strings.Contains(problems[0].Text, `HTTPEndpoint web: header "X-Secret": read secret "one"`) ||
		!strings.Contains(problems[1].Text, "HTTPEndpoint web: clientTLS.privateKey: read secret") {
		t.Error(problems)
	}
	vault := Component{Name: "vault", Type: "secretstores.local.file"}
	if ps := e.CheckStore([]Component{vault}); len(ps) > 0 || !e.HasSecrets() {
		t.Error(ps)
	}
	vault.Type = "bindings.cron"
	if ps := e.CheckStore([]Component{vault}); len(ps) != 1 || ps[0].Place.Line != 15 || !strings.Contains(ps[0].Text, "is a bindings.cron, not a secret store") {
		t.Error(ps)
	}
}

func TestDiffOfHTTPEndpoints(t *testing.T) {
	t.Parallel()
	before, _ := parseEndpoint(t, endpointDoc, Options{AppID: "shop"})
	moved, _ := parseEndpoint(t, "# moved\n"+endpointDoc, Options{AppID: "shop"})
	other, _ := parseEndpoint(t, strings.Replace(endpointDoc, "7", "8", 1), Options{AppID: "shop"})
	if c := Diff(before, moved); !c.Empty() {
		t.Errorf("%+v", c)
	}
	if c := Diff(before, other); c.Empty() || len(c.HTTPEndpoints.Changed) != 1 {
		t.Errorf("%+v", c)
	}
	if c := Diff(before, &Set{}); c.Empty() || len(c.HTTPEndpoints.Removed) != 1 {
		t.Errorf("%+v", c)
	}
}

// What a document holds is in no message, wherever a mistake stands.
func TestNoValueOfAnHTTPEndpointIsShown(t *testing.T) {
	t.Parallel()
	const begin = "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: web}\nspec:\n  baseUrl: https://x\n"
	for _, text := range []string{
		begin + "  headers: [{name: a, value: hunter2, valu: b}]",
		begin + "  headers: [{name: a, valeu: hunter2}]",
		begin + "  headers: [{value: hunter2}]",
		begin + "  headers: [hunter2]",
		begin + "  headers: {a: hunter2}",
		begin + "  headers: hunter2",
		begin + "  clientTLS: {privateKey: hunter2, other: 1}",
		begin + "  clientTLS: hunter2",
		begin + "  clientTLS: {privateKey: {value: hunter2}, renegotiation: often}",
		begin + "  clientTLS: {privateKey: {valu: hunter2}}",
		begin + "  clientTLS: {privateKey: {secretKeyRef: hunter2}}",
		strings.Replace(begin, "spec:\n  baseUrl: https://x\n", "spec: {baseUrl: [], headers: hunter2}", 1),
		"{apiVersion: dapr.io/v1alpha1, kind: HTTPEndpoint, metadata: {name: web, x: y}, spec: {headers: [{name: a, value: hunter2}]}, z: 1}",
	} {
		_, problems := Parse("web.yaml", []byte(text+"\n"), Options{})
		if len(problems) == 0 {
			t.Errorf("no problem with\n%s", text)
		}
		if strings.Contains(problems.Error(), "hunter2") {
			t.Errorf("%s\nis told as\n%s", text, problems)
		}
	}
}
