package runtime_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/runtime"
)

func TestASubscriptionStartsWhenItsBrokerDoes(t *testing.T) {
	t.Parallel()
	a, at := newApp(t, `[]`), address(t)
	in, o := prepare(t, a, farAt(at)+declared)
	in.begin(t, o)
	eventually(t, "readiness names the broker", func() bool {
		return strings.Contains(in.text(t, "/healthz"), "component bus, failing")
	})
	in.logged(t, 1, "dapr initialized")
	if text := in.text(t, "/healthz"); !strings.Contains(text, "component bus, failing") {
		t.Errorf("after the app was seen, readiness says %q", text)
	}
	if text := in.text(t, "/metadata"); strings.Contains(text, `"topic"`) {
		t.Errorf("a subscription is listed that cannot run: %s", text)
	}
	failing := in.component(t, "bus")
	if since, err := time.Parse(time.RFC3339, failing.Since); failing.State != "failing" || err != nil || time.Since(since) > time.Minute ||
		!strings.Contains(failing.Error, "reach server") {
		t.Errorf("metadata has %+v, %v", failing, err)
	}
	listen(t, at)
	eventually(t, "ready", func() bool { return in.get(t, "/healthz") == http.StatusNoContent })
	if ready := in.component(t, "bus"); ready.State != "ready" || ready.Since < failing.Since || ready.Error != "" {
		t.Errorf("metadata has %+v", ready)
	}
	in.publish(t, "t", `1`)
	a.next(t, "/one")
}

// component returns what the metadata document says of a component.
func (in *instance) component(t *testing.T, name string) api.ComponentInfo {
	t.Helper()
	var m api.Metadata
	if err := json.Unmarshal([]byte(in.text(t, "/metadata")), &m); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(m.Components, func(c api.ComponentInfo) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no component %s in %v", name, m.Components)
	}
	return m.Components[i]
}

func TestTheAppIsAskedUntilItSays(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.wants(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "warming up", http.StatusServiceUnavailable)
	})
	in, o := prepare(t, a, bus+declared)
	in.begin(t, o)
	in.logged(t, 1, "did not say its subscriptions")
	if text := in.text(t, "/healthz"); !strings.Contains(text, "the app's subscriptions") {
		t.Errorf("readiness says %q", text)
	}
	in.publish(t, "t", `"what is declared goes on meanwhile"`)
	a.next(t, "/one")
	a.wants(reply(`[{"pubsubname":"bus","topic":"late","route":"/late"}]`))
	eventually(t, "ready", func() bool { return in.get(t, "/healthz") == http.StatusNoContent })
	in.publish(t, "late", `1`)
	a.next(t, "/late")
}

func TestAnAppThatFailsForUnknownPathsIsReady(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.wants(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no handler", http.StatusInternalServerError)
	})
	start(t, a, bus+declared)
}

func TestAnAppThatComesBackIsAskedAgain(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"a","route":"/a"}]`)
	var down atomic.Bool
	a.answer("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			http.Error(w, "restarting", http.StatusServiceUnavailable)
		}
	})
	in, o := prepare(t, a, bus)
	o.App.HealthCheck, o.App.HealthPath, o.App.HealthInterval, o.App.HealthThreshold = true, "/healthz", 20*time.Millisecond, 1
	in.run(t, o)
	down.Store(true)
	in.logged(t, 1, "App is unhealthy")
	a.wants(reply(`[{"pubsubname":"bus","topic":"b","route":"/b"}]`))
	down.Store(false)
	eventually(t, "the new subscription is there", func() bool {
		text := in.text(t, "/metadata")
		return strings.Contains(text, `"topic":"b"`) && !strings.Contains(text, `"topic":"a"`)
	})
	in.publish(t, "b", `1`)
	a.next(t, "/b")
}

func TestWhatMayFailHoldsNothingUp(t *testing.T) {
	t.Parallel()
	ignored := strings.Replace(secretFolder, "version: v1,", "version: v1, ignoreErrors: true,", 1)
	in, o := prepare(t, nil, bus+vault+ignored+pipeline)
	in.write(t, "secrets.json", `{}`)
	in.run(t, o)
	in.logged(t, 1, "Component ignored")
	in.publish(t, "in", `{"n":1,"key":"k"}`)
	t.Log("mended, it is opened and the pipeline starts")
	in.write(t, "resources.yaml", bus+store+pipeline)
	in.logged(t, 1, taken)
	eventually(t, "the pipeline works", func() bool {
		in.publish(t, "in", `{"n":2,"key":"k2"}`)
		return exists(in.dir, "out", "k2.json")
	})
}

func TestAFailedStartClosesWhatItOpened(t *testing.T) {
	t.Parallel()
	at := address(t)
	in, o := prepare(t, nil, hook("ok", "/1", at)+hook("clash", "/1", at))
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err = r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "/1") {
		t.Fatalf("run ended with %v\n%s", err, in.log)
	}
	listen(t, at) // it is free again
}

func TestASecretStoreThatCannotBeReachedDoesNotEndTheStart(t *testing.T) {
	t.Parallel()
	at := address(t)
	docs := strings.Replace(farAt(at), "pubsub.far", "secretstores.far", 1)
	docs = strings.Replace(docs, "name: bus", "name: vault", 1) +
		strings.Replace(secretFolder, "name: folder", "name: DIR/out", 1) + bus + pipeline
	in, o := prepare(t, nil, docs)
	in.begin(t, o)
	eventually(t, "readiness names who waits for it", func() bool {
		return strings.Contains(in.text(t, "/healthz"), "component store: ")
	})
	in.publish(t, "in", `{"n":0,"key":"unused"}`)
	listen(t, at)
	eventually(t, "ready", func() bool { return in.get(t, "/healthz") == http.StatusNoContent })
	in.publish(t, "in", `{"n":1,"key":"k"}`)
	eventually(t, "the pipeline works", func() bool { return exists(in.dir, "out", "k.json") })
}

// The API listens before the components are made. Whoever is quick is not told
// that there is no such component.
func TestAnEarlyCallWaitsForItsComponent(t *testing.T) {
	t.Parallel()
	docs := strings.Replace(farAt(address(t)), "pubsub.far", "secretstores.far", 1) // holds up the others for a while
	in, o := prepare(t, nil, strings.Replace(docs, "name: bus", "name: vault", 1)+bus)
	in.begin(t, o)
	in.publish(t, "early", `1`)
	if status, text := in.post(t, "/publish/nope/early", `1`); status != http.StatusNotFound {
		t.Errorf("%d %s", status, text)
	}
}

const canary = "s3cr3t-canary"

func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	docs := vault + farAt("SECRET") + `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: clock}
spec: {type: bindings.cron, version: v1, ignoreErrors: true, metadata: [{name: schedule, secretKeyRef: {name: c}}]}
auth: {secretStore: vault}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: gate}
spec: {type: bindings.webhook, version: v1, ignoreErrors: true, metadata: [{name: path, value: /x}, {name: listen, value: "127.0.0.1:0"}, {name: tolerance, secretKeyRef: {name: c}}, {name: secret, secretKeyRef: {name: c}}]}
auth: {secretStore: vault}
---
`
	docs = strings.Replace(docs, `value: "SECRET"`, `secretKeyRef: {name: address}`, 1)
	docs = strings.Replace(docs, "---\n\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: clock}", "auth: {secretStore: vault}\n---\n\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: clock}", 1)
	in, o := prepare(t, nil, docs)
	in.write(t, "secrets.json", `{"c":"`+canary+`","address":"`+canary+`"}`)
	in.begin(t, o)
	eventually(t, "it answers", func() bool { return in.get(t, "/healthz") != 0 })
	in.logged(t, 2, "Component ignored")
	eventually(t, "the broker failed", func() bool { return strings.Contains(in.text(t, "/metadata"), "bus") })
	for what, text := range map[string]string{"log": in.log.String(), "metadata": in.text(t, "/metadata"), "readiness": in.text(t, "/healthz")} {
		if strings.Contains(text, canary) {
			t.Errorf("%s holds a secret:\n%s", what, text)
		}
	}
}
