package runtime_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

const outboxStore = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: kept}
spec:
  type: state.in-memory
  version: v1
  metadata: [{name: outboxPublishPubsub, value: bus}, {name: outboxPublishTopic, value: orders}]
---
`

func TestOutbox(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`)
	in := start(t, a, bus+outboxStore)
	body := `{"operations":[{"operation":"upsert","request":{"key":"k","value":{"n":1},"metadata":{"cloudevent.type":"made"}}}]}`
	if code, text := in.post(t, "/state/kept/transaction", body); code != http.StatusNoContent {
		t.Fatalf("transaction: %d %s", code, text)
	}
	got := a.next(t, "/orders")
	if !strings.Contains(got.body, `"data":{"n":1}`) || !strings.Contains(got.body, `"type":"made"`) || !strings.Contains(got.body, `"id":"outbox-`) {
		t.Errorf("the app got %s", got.body)
	}
	if text := in.text(t, "/state/kept/k"); text != `{"n":1}` {
		t.Errorf("saved %q", text)
	}
	if code, text := in.post(t, "/state/kept", `[{"key":"plain","value":1}]`); code != http.StatusNoContent { // no transaction, no event
		t.Fatalf("save: %d %s", code, text)
	}
}

// Two replicas of an app share what was delivered in a state store.
func TestDedupeInAStore(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders","metadata":{"dedupeStore":"kept"}}]`)
	in := start(t, a, bus+memory)
	event := `{"specversion":"1.0","id":"7","source":"s","type":"t","data":1}`
	in.publishEvent(t, event)
	a.next(t, "/orders")
	in.publishEvent(t, event)
	in.publishEvent(t, strings.Replace(event, `"7"`, `"8"`, 1))
	if got := a.next(t, "/orders"); !strings.Contains(got.body, `"id":"8"`) {
		t.Errorf("the app got %s, want only what is new", got.body)
	}
}

// A store that is opened anew because of a secret has its outbox read, too.
func TestRotationOfAStoreMovesItsOutbox(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`)
	store := strings.Replace(outboxStore, "value: orders}]", "value: orders}, {name: primaryEncryptionKey, secretKeyRef: {name: key}}]\nauth: {secretStore: vault}", 1)
	in, o := prepare(t, a, vault+bus+store)
	in.keep(t, map[string]string{"key": strings.Repeat("01", 16)})
	in.run(t, o)
	for i, key := range []string{"", strings.Repeat("02", 16)} {
		if key != "" {
			in.keep(t, map[string]string{"key": key})
			in.logged(t, 1, turned)
		}
		if code, text := in.post(t, "/state/kept/transaction", `{"operations":[{"operation":"upsert","request":{"key":"k","value":`+strconv.Itoa(i)+`}}]}`); code != http.StatusNoContent {
			t.Fatalf("transaction: %d %s", code, text)
		}
		if got := a.next(t, "/orders"); !strings.Contains(got.body, `"data":`+strconv.Itoa(i)) {
			t.Errorf("the app got %s", got.body)
		}
	}
}

// An event whose topic cannot be published to waits until it can.
func TestOutboxWaitsForItsTopic(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in := start(t, a, outboxStore)
	if code, text := in.post(t, "/state/kept/transaction", `{"operations":[{"operation":"upsert","request":{"key":"k","value":7}}]}`); code != http.StatusNoContent {
		t.Fatalf("transaction: %d %s", code, text)
	}
	in.logged(t, 1, "bus")
	in.write(t, "more.yaml", bus+`
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec: {pubsubname: bus, topic: orders, routes: {default: /orders}}
`)
	if got := a.next(t, "/orders"); !strings.Contains(got.body, `"data":7`) {
		t.Errorf("the app got %s", got.body)
	}
}
