package runtime_test

import (
	"net/http"
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
