package runtime_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/port"
)

const taken = "Configuration reloaded"

// address returns a free address of this machine.
func address(t *testing.T) string {
	t.Helper()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", p)
}

// listen makes the server of a far component.
func listen(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

func farAt(address string) string {
	return strings.Replace(bus, "pubsub.in-memory, version: v1, metadata: []",
		`pubsub.far, version: v1, metadata: [{name: address, value: "`+address+`"}]`, 1)
}

func TestTheAppMayAskForMetadataWhileItsRouteIsReplaced(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	release := make(chan struct{})
	a.answer("/one", func(http.ResponseWriter, *http.Request) { <-release })
	in := start(t, a, bus+declared)
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	in.write(t, "resources.yaml", bus+strings.Replace(declared, "/one", "/two", 1))
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	// The route drains for as long as the app holds the event; a look at any
	// moment of that must be answered.
	for range 20 {
		resp, err := client.Get(in.url + "/metadata")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		<-time.After(20 * time.Millisecond)
	}
	close(release)
	in.logged(t, 1, taken)
	in.publish(t, "t", `2`)
	a.next(t, "/two")
}

const vault = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: DIR/secrets.json}]}
---
`

const secretFolder = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: bindings.localstorage, version: v1, metadata: [{name: rootPath, secretKeyRef: {name: folder}}]}
auth: {secretStore: vault}
---
`

func (in *instance) store(t *testing.T, file string) bool {
	t.Helper()
	status, _ := in.post(t, "/bindings/store", `{"operation":"create","data":"x","metadata":{"fileName":"`+file+`"}}`)
	return status/100 == 2
}

func exists(path ...string) bool {
	_, err := os.Stat(filepath.Join(path...))
	return err == nil
}

func TestReloadOpensAStoreAndWhoNeedsIt(t *testing.T) {
	t.Parallel()
	in := start(t, nil, bus)
	in.write(t, "secrets.json", `{"folder":"DIR/one"}`)
	in.write(t, "more.yaml", vault+secretFolder)
	in.logged(t, 1, taken)
	if !in.store(t, "f") || !exists(in.dir, "one", "f") {
		t.Fatal("the component did not get its secret")
	}
	t.Log("another store means another secret")
	in.write(t, "other.json", `{"folder":"DIR/two"}`)
	in.write(t, "more.yaml", strings.Replace(vault, "secrets.json", "other.json", 1)+secretFolder)
	in.logged(t, 2, taken)
	if !in.store(t, "f") || !exists(in.dir, "two", "f") {
		t.Error("the component goes on with the secret of the old store")
	}
}

func TestReloadOnDemandReadsSecretsAgain(t *testing.T) {
	t.Parallel()
	still := strings.Replace(vault, "DIR/secrets.json}", `DIR/secrets.json}, {name: rotationInterval, value: "0"}`, 1)
	in, o := prepare(t, nil, still+secretFolder)
	in.write(t, "secrets.json", `{"folder":"DIR/one"}`)
	reload := make(chan struct{})
	o.Reload = reload
	in.run(t, o)
	in.write(t, "secrets.json", `{"folder":"DIR/twelve"}`)
	reload <- struct{}{}
	in.logged(t, 1, taken)
	if !in.store(t, "f") || !exists(in.dir, "twelve", "f") {
		t.Error("the component goes on with the old secret")
	}
}

func TestReloadAppliesSecretScopes(t *testing.T) {
	t.Parallel()
	scope := `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec: {secrets: {scopes: [{storeName: vault, defaultAccess: ACCESS}]}}
`
	in, o := prepare(t, nil, vault)
	in.write(t, "secrets.json", `{"folder":"x"}`)
	config := filepath.Join(t.TempDir(), "config.yaml")
	write := func(access string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(strings.Replace(scope, "ACCESS", access, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("allow")
	o.Configs = []string{config}
	in.run(t, o)
	if status := in.get(t, "/secrets/vault/folder"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	write("deny")
	eventually(t, "the secret is out of scope", func() bool { return in.get(t, "/secrets/vault/folder") == http.StatusForbidden })
	t.Log("a store that is opened again has the scope too")
	in.write(t, "other.json", `{"folder":"x"}`)
	in.write(t, "resources.yaml", strings.Replace(vault, "secrets.json", "other.json", 1))
	eventually(t, "the store is opened again", func() bool { return strings.Contains(in.log.String(), "opened=1") })
	if status := in.get(t, "/secrets/vault/folder"); status != http.StatusForbidden {
		t.Errorf("status %d after the store was opened again", status)
	}
}

func TestReloadKeepsWhatWorksUntilTheNewCanBeReached(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	here, there := address(t), address(t)
	listen(t, here)
	in := start(t, a, farAt(here)+declared)
	in.write(t, "resources.yaml", farAt(there)+declared)
	in.logged(t, 1, "nothing was changed")
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	listen(t, there)
	in.logged(t, 1, taken)
	in.publish(t, "t", `2`)
	a.next(t, "/one")
}

func hook(name, path, listen string) string {
	return strings.NewReplacer("NAME", name, "PATH", path, "LISTEN", listen).Replace(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: NAME}
spec: {type: bindings.webhook, version: v1, metadata: [{name: path, value: PATH}, {name: listen, value: "LISTEN"}, {name: route, value: /hook}, {name: direction, value: input}]}
---
`)
}

func send(address, path string) int {
	resp, err := http.Post("http://"+address+path, "application/json", strings.NewReader(`{"a":1}`))
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestAnInputMayBeRenamed(t *testing.T) {
	t.Parallel()
	a, at := newApp(t, `[]`), address(t)
	in := start(t, a, hook("old", "/h", at))
	if status := send(at, "/h"); status/100 != 2 {
		t.Fatalf("status %d", status)
	}
	a.next(t, "/hook")
	in.write(t, "resources.yaml", hook("new", "/h", at))
	in.logged(t, 1, taken)
	eventually(t, "the new one takes events", func() bool { return send(at, "/h")/100 == 2 })
	a.next(t, "/hook")
	if text := in.text(t, "/metadata"); strings.Contains(text, `"old"`) || !strings.Contains(text, `"new"`) {
		t.Errorf("metadata is %s", text)
	}
}

func TestAnInputThatCannotChangeGoesOn(t *testing.T) {
	t.Parallel()
	a, at := newApp(t, `[]`), address(t)
	first, second := hook("first", "/1", at), hook("second", "/2", at)
	in := start(t, a, first+second+bus)
	t.Log("both on one path is an error that only opening tells; the rest of the change is not made either")
	in.write(t, "resources.yaml", hook("first", "/2", at)+second+strings.Replace(bus, "name: bus", "name: coach", 1))
	in.logged(t, 1, "nothing was changed")
	eventually(t, "both go on", func() bool { return send(at, "/1")/100 == 2 && send(at, "/2")/100 == 2 })
	in.publish(t, "t", `1`)
	in.write(t, "resources.yaml", hook("first", "/3", at)+second+bus)
	in.logged(t, 1, taken)
	eventually(t, "the change is made", func() bool { return send(at, "/3")/100 == 2 && send(at, "/1") == http.StatusNotFound })
}

func TestReloadOfTargetsLosesNothing(t *testing.T) {
	t.Parallel()
	docs := func(name string) string {
		return bus + strings.Replace(store, "name: store", "name: "+name, 1) + strings.Replace(`
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  from: {pubsub: bus, topic: in}
  to: [{binding: {name: NAME, operation: create, metadata: {fileName: '{{ event.data.n }}'}}}]
`, "NAME", name, 1)
	}
	const events = 600
	in := start(t, nil, docs("store0"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range events {
			if status, text := in.post(t, "/publish/bus/in", fmt.Sprintf(`{"n":"e%d"}`, i)); status != http.StatusNoContent {
				t.Errorf("publish: %d %s", status, text)
			}
		}
	}()
	for i := 1; i <= 3; i++ {
		in.write(t, "resources.yaml", docs("store"+strconv.Itoa(i)))
		in.logged(t, i, taken)
	}
	<-done
	eventually(t, "every event is in a file", func() bool {
		list, err := os.ReadDir(filepath.Join(in.dir, "out"))
		return err == nil && len(list) >= events
	})
}

func TestManyChangesUnderLoad(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in := start(t, a, bus+declared)
	paths := []string{"/one", "/two", "/three"}
	done := make(chan struct{})
	const events = 300
	go func() {
		defer close(done)
		for i := range events {
			in.post(t, "/publish/bus/t", strconv.Itoa(i))
		}
	}()
	for i := range 6 {
		size := strings.Replace(bus, "metadata: []", fmt.Sprintf(`metadata: [{name: maxMessages, value: "%d"}]`, 5000+i), 1)
		in.write(t, "resources.yaml", size+strings.Replace(declared, "/one", paths[i%3], 1))
		in.logged(t, i+1, taken)
	}
	<-done
	seen := map[string]bool{}
	limit := time.After(60 * time.Second)
	for len(seen) < events {
		select {
		case c := <-a.calls:
			seen[c.body[strings.LastIndex(c.body, `"data"`):]] = true
		case <-limit:
			t.Fatalf("only %d of %d events came", len(seen), events)
		}
	}
}

func TestAComponentInUseCannotBeRemoved(t *testing.T) {
	t.Parallel()
	in := start(t, nil, bus+store+pipeline)
	in.write(t, "resources.yaml", bus+pipeline)
	in.logged(t, 1, "nothing was changed")
	in.publish(t, "in", `{"n":1,"key":"k"}`)
	eventually(t, "the pipeline goes on", func() bool { return exists(in.dir, "out", "k.json") })
}

func TestAnInputThatMayFailAndDoesIsGone(t *testing.T) {
	t.Parallel()
	a, at := newApp(t, `[]`), address(t)
	first, second := hook("first", "/1", at), hook("second", "/2", at)
	in := start(t, a, first+second)
	in.write(t, "resources.yaml", strings.Replace(hook("first", "/2", at), "version: v1,", "version: v1, ignoreErrors: true,", 1)+second)
	in.logged(t, 1, taken)
	if text := in.text(t, "/metadata"); strings.Contains(text, `"first"`) {
		t.Errorf("metadata is %s", text)
	}
	if status := in.get(t, "/healthz"); status != http.StatusNoContent {
		t.Errorf("health is %d: %s", status, in.text(t, "/healthz"))
	}
	in.write(t, "resources.yaml", first+second)
	in.logged(t, 2, taken)
	eventually(t, "it is back", func() bool { return send(at, "/1")/100 == 2 })
}

func TestTheChangesOfAPipelinesSource(t *testing.T) {
	t.Parallel()
	at := address(t)
	fromHook := strings.Replace(pipeline, "from: {pubsub: bus, topic: in}", "from: {binding: gate}", 1)
	fromHook = strings.Replace(fromHook, "filter: event.data.n > 0", "filter: event.data.a > 0", 1)
	fromHook = strings.NewReplacer(".data.n * 2", ".data.a * 2", "key: .data.key", `key: "hook"`).Replace(fromHook)
	gate := strings.Replace(hook("gate", "/g", at), `, {name: direction, value: input}`, "", 1)
	in := start(t, nil, bus+store+gate+pipeline)
	in.publish(t, "in", `{"n":1,"key":"k1"}`)
	eventually(t, "the topic is read", func() bool { return exists(in.dir, "out", "k1.json") })
	in.write(t, "resources.yaml", bus+store+gate+fromHook)
	in.logged(t, 1, taken)
	eventually(t, "the webhook takes events", func() bool { return send(at, "/g")/100 == 2 })
	eventually(t, "the binding is read", func() bool { return exists(in.dir, "out", "hook.json") })
	in.write(t, "resources.yaml", bus+store+gate+pipeline)
	in.logged(t, 2, taken)
	in.publish(t, "in", `{"n":1,"key":"k2"}`)
	eventually(t, "the topic is read again", func() bool { return exists(in.dir, "out", "k2.json") })
}
