package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock-io/penstock/test/port"
)

// crons makes cron bindings that fire each second, named like the options.
func crons(options ...string) string {
	var b strings.Builder
	for i, o := range options {
		fmt.Fprintf(&b, `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: c%d}
spec:
  type: bindings.cron
  version: v1
  metadata:
  - {name: schedule, value: "@every 1s"}
%s
---
`, i, o)
	}
	return b.String()
}

// The app is asked with OPTIONS whether it takes a binding's events, unless the
// component says that it is an input.
func TestInputProbe(t *testing.T) {
	t.Parallel()
	const route = `  - {name: route, value: "/%s"}`
	probes := map[string]answer{
		"OPTIONS /c0": {status: 200}, "OPTIONS /c1": {status: 204}, "OPTIONS /c2": {status: 405},
		"OPTIONS /c3": {status: 404}, "OPTIONS /c4": {status: 403}, "OPTIONS /routed/here": {status: 200},
		"OPTIONS /declared": {status: 404}, "OPTIONS /c7": {status: 200}, "OPTIONS /c8": {status: 500},
	}
	a := &app{reply: func(c call, _ int) answer {
		if c.method == "OPTIONS" {
			return probes["OPTIONS "+c.path]
		}
		return answer{}
	}}
	a.serve(t)
	start(t, setup{app: a.port, resources: crons("", "", "", "", "",
		fmt.Sprintf(route, "routed/here"),
		fmt.Sprintf(route, "declared")+"\n  - {name: direction, value: input}",
		"  - {name: direction, value: output}", "")})
	for _, path := range []string{"/c0", "/c1", "/c2", "/routed/here", "/declared"} {
		if c := a.wait(t, path, 2)[0]; c.method != "POST" {
			t.Errorf("%s was called with %s", path, c.method)
		}
	}
	for _, path := range []string{"/c3", "/c4", "/c5", "/c6", "/c7", "OPTIONS /declared", "OPTIONS /c7"} {
		if n := len(a.got(path)); n > 0 {
			t.Errorf("%s was called %d times", path, n)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const outputs = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: hook}
spec:
  type: bindings.webhook
  version: v1
  metadata:
  - {name: listen, value: "127.0.0.1:HOOK"}
  - {name: passHeaders, value: X-Tenant}
  - {name: route, value: /in}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: sink}
spec:
  type: bindings.http
  version: v1
  metadata: [{name: url, value: "http://127.0.0.1:APP/sink"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: files}
spec:
  type: bindings.localstorage
  version: v1
  metadata: [{name: rootPath, value: DIR/files}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: unreachable}
spec:
  type: bindings.http
  version: v1
  metadata: [{name: url, value: "http://127.0.0.1:1/"}]
---
`

// What comes in reaches the app as it came, and what the app answers is carried
// out before the sender is answered.
func TestInputBinding(t *testing.T) {
	t.Parallel()
	a := &app{}
	a.reply = func(c call, n int) answer {
		switch {
		case c.path != "/in":
			return answer{}
		case string(c.body) == "again" && n == 1:
			return answer{status: 500}
		}
		return answer{body: string(c.body)} // the reply is what was sent
	}
	a.serve(t)
	hook := freePort(t)
	start(t, setup{app: a.port, resources: strings.NewReplacer("HOOK", fmt.Sprint(hook), "APP", fmt.Sprint(a.port)).Replace(outputs)})
	url := fmt.Sprintf("http://127.0.0.1:%d/hook", hook)
	post := func(body string) response {
		return send(t, request{url: url, contentType: "application/x-own", body: body, header: map[string]string{"X-Tenant": "t1"}})
	}
	if r := post("again"); r.status != 503 { // the app failed, so the sender keeps it
		t.Errorf("sender got %d %s", r.status, r.body)
	}
	if r := post("again"); r.status/100 != 2 {
		t.Fatalf("sender got %d %s", r.status, r.body)
	}
	c := a.wait(t, "/in", 2)[1]
	if string(c.body) != "again" || c.header.Get("Content-Type") != "application/x-own" || c.header.Get("X-Tenant") != "t1" {
		t.Errorf("app got %q with %v", c.body, c.header)
	}
	for _, row := range []struct{ name, reply, path, body string }{
		{"create", `{"to":["sink"],"data":{"n":1.0}}`, "/sink", `{"n":1.0}`},
		{"operation and text", `{"to":"sink","operation":"put","data":"text","metadata":{"path":"/put"}}`, "/sink/put", "text"},
		{"parallel", `{"to":["sink","sink"],"data":"p","concurrency":"parallel","metadata":{"path":"/two"}}`, "/sink/two", "p"},
		{"not a reply", `{"status":"ok","data":"x"}`, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if r := post(row.reply); r.status/100 != 2 {
				t.Fatalf("sender got %d %s", r.status, r.body)
			}
			if row.path == "" {
				return
			}
			got := a.got(row.path) // done before the answer
			if len(got) == 0 || string(got[0].body) != row.body {
				t.Errorf("%s got %v", row.path, got)
			}
		})
	}
	if n := len(a.got("/sink/two")); n != 2 {
		t.Errorf("parallel reached %d outputs", n)
	}
}

// withOutputs are the outputs, those over HTTP leading to the app.
func withOutputs(t *testing.T, a *app) string {
	t.Helper()
	return strings.NewReplacer("HOOK", fmt.Sprint(freePort(t)), "APP", fmt.Sprint(a.port)).Replace(outputs)
}

func TestOutputBinding(t *testing.T) {
	t.Parallel()
	a := &app{reply: func(call, int) answer {
		return answer{status: 201, body: `{"made":1.0}`, header: map[string][]string{"X-Reply": {"yes"}}}
	}}
	a.serve(t)
	sc := start(t, setup{resources: withOutputs(t, a)})
	for _, row := range []struct{ name, path, data, want string }{
		{"JSON", "/json", `{"b":1.0,"a":12345678901234567890}`, `{"b":1.0,"a":12345678901234567890}`},
		{"text", "/text", `"a \"b\""`, `a "b"`},
		{"base64 stays", "/b64", `"AP8="`, `AP8=`},
		{"number", "/number", `1.50`, `1.50`},
		{"null", "/null", `null`, ``},
		{"none", "/none", ``, ``},
	} {
		t.Run(row.name, func(t *testing.T) {
			data := ""
			if row.data != "" {
				data = `"data":` + row.data + `,`
			}
			r := send(t, request{
				url: sc.api + "/bindings/sink", body: `{` + data + `"operation":"post","metadata":{"path":"` + row.path + `","X-Mine":"m"}}`,
				header: map[string]string{"traceparent": parent},
			})
			if r.status != 200 || r.body != `{"made":1.0}` || r.header.Get("metadata.statusCode") != "201" || r.header.Get("metadata.X-Reply") != "yes" {
				t.Errorf("answer %d %q %v", r.status, r.body, r.header)
			}
			c := a.wait(t, "/sink"+row.path, 1)[0]
			if string(c.body) != row.want || c.header.Get("X-Mine") != "m" || !strings.HasPrefix(c.header.Get("traceparent"), parent[:35]) {
				t.Errorf("sent %q with %v", c.body, c.header)
			}
		})
	}
}

func TestOutputOperations(t *testing.T) {
	t.Parallel()
	a := (&app{reply: func(call, int) answer { return answer{status: 502} }}).serve(t)
	sc := start(t, setup{resources: withOutputs(t, a)})
	t.Run("files", func(t *testing.T) {
		call := func(op, data string) response {
			return send(t, request{method: "PUT", url: sc.api + "/bindings/files", body: `{"operation":"` + op + `","data":` + data + `,"metadata":{"fileName":"f.txt"}}`})
		}
		if r := call("create", `"hi"`); r.status != 200 && r.status != 204 {
			t.Errorf("create: %d %s", r.status, r.body)
		}
		if got, err := os.ReadFile(filepath.Join(sc.dir, "files", "f.txt")); err != nil || string(got) != "hi" {
			t.Errorf("file %q: %v", got, err)
		}
		if r := call("get", "null"); r.status != 200 || r.body != "hi" {
			t.Errorf("get: %d %s", r.status, r.body)
		}
		if r := call("delete", "null"); r.status != 204 || r.body != "" {
			t.Errorf("delete: %d %s", r.status, r.body)
		}
	})
	for _, row := range []struct {
		name, binding, body string
		status              int
		code                string
	}{
		{"unknown binding", "nope", `{"operation":"create"}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
		{"unknown operation", "files", `{"operation":"paint"}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
		{"no operation", "files", `{"data":1}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
		{"component fails", "sink", `{"operation":"post","metadata":{"path":"/fail"}}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
		{"server is down", "unreachable", `{"operation":"get"}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
		{"not JSON", "files", `{`, 400, "ERR_MALFORMED_REQUEST"},
		{"metadata not text", "files", `{"operation":"list","metadata":{"a":{}}}`, 400, "ERR_MALFORMED_REQUEST"},
	} {
		t.Run(row.name, func(t *testing.T) {
			checkProblem(t, send(t, request{url: sc.api + "/bindings/" + row.binding, body: row.body}), row.status, row.code, "")
		})
	}
}

const vaults = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: flat}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: DIR/secrets.json}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: multi}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: DIR/secrets.json}, {name: multiValued, value: "true"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: closed}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: DIR/secrets.json}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: env}
spec: {type: secretstores.local.env, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: open}
spec: {type: secretstores.local.env, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: fromsecret}
spec:
  type: pubsub.in-memory
  version: v1
  metadata:
  - {name: allowedTopics, secretKeyRef: {name: one, key: one}}
  - {name: consumerID, envRef: APP_GROUP}
auth: {secretStore: flat}
---
`

const vaultScopes = `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  secrets:
    scopes:
    - {storeName: closed, defaultAccess: "deny", allowedSecrets: [one]}
    - {storeName: flat, deniedSecrets: ["db:user"]}
    - {storeName: env, defaultAccess: "deny"}
`

func TestSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secrets.json"), `{"one":"first","db":{"user":"u","pass":"p"}}`)
	// A later file wins, and takes what it leaves open from the environment.
	later := filepath.Join(dir, "later.yaml")
	write(t, later, strings.ReplaceAll(vaultScopes, `"deny",`, `"${ACCESS}",`))
	sc := start(t, setup{
		dir: dir, resources: vaults, config: strings.ReplaceAll(vaultScopes, `"deny",`, `"allow",`), flags: []string{"--config", later},
		env: []string{"COLOUR=blue", "APP_GROUP=g", "ACCESS=deny"},
	})
	none := start(t, setup{resources: buses})
	for _, row := range []struct {
		name, path string
		status     int
		want       string // the body, or the code of an error
	}{
		{"one value", "flat/one", 200, `{"one":"first"}`},
		{"nested", "flat/db:pass", 200, `{"db:pass":"p"}`},
		{"several values", "multi/db", 200, `{"pass":"p","user":"u"}`},
		{"environment", "open/COLOUR", 200, `{"COLOUR":"blue"}`},
		{"environment, out of scope", "env/COLOUR", 403, "ERR_PERMISSION_DENIED"},
		{"all", "flat/bulk", 200, `{"db:pass":{"db:pass":"p"},"one":{"one":"first"}}`},
		{"all of several values", "multi/bulk", 200, `{"db":{"pass":"p","user":"u"},"one":{"one":"first"}}`},
		{"all in scope", "closed/bulk", 200, `{"one":{"one":"first"}}`},
		{"in scope", "closed/one", 200, `{"one":"first"}`},
		{"out of scope", "closed/db:user", 403, "ERR_PERMISSION_DENIED"},
		{"denied", "flat/db:user", 403, "ERR_PERMISSION_DENIED"},
		{"unknown secret", "flat/nope", 500, "ERR_SECRET_GET"},
		{"unknown store", "nope/one", 401, "ERR_SECRET_STORE_NOT_FOUND"},
		{"all of an unknown store", "nope/bulk", 401, "ERR_SECRET_STORE_NOT_FOUND"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := get(t, sc.api+"/secrets/"+row.path)
			if row.status != 200 {
				checkProblem(t, r, row.status, row.want, "")
				return
			}
			if diff := cmp.Diff(row.want, r.body); r.status != 200 || diff != "" {
				t.Errorf("%d (-want +got):\n%s", r.status, diff)
			}
		})
	}
	checkProblem(t, get(t, none.api+"/secrets/flat/one"), 500, "ERR_SECRET_STORES_NOT_CONFIGURED", "")
	sc.publish(t, "fromsecret/first", `1`)
	r := send(t, request{url: sc.api + "/publish/fromsecret/other"})
	checkProblem(t, r, 403, "ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN")
}
