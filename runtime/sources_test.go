package runtime_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/telemetry/journal"
)

const nightly = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: nightly}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "0 3 * * *"}, {name: timeZone, value: UTC}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: hook}
spec:
  type: bindings.webhook
  version: v1
  metadata: [{name: listen, value: "127.0.0.1:0"}, {name: path, value: /hooks/in}, {name: signature, value: hmac}, {name: secret, value: s3cret}]
---
`

func ask[T any](t *testing.T, in *instance, path string) (out T) {
	t.Helper()
	if err := json.Unmarshal([]byte(in.text(t, path)), &out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return out
}

type triggers struct{ Triggers []api.Trigger }

// TestTriggersAndWebhooks: a trigger that is run by hand goes the way of a tick, and
// what a webhook answered can be seen.
func TestTriggersAndWebhooks(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in := start(t, a, nightly)
	eventually(t, "the trigger is read", func() bool {
		all := ask[triggers](t, in, "-penstock/triggers").Triggers
		return len(all) == 1 && all[0].NextRun != ""
	})
	is := ask[triggers](t, in, "-penstock/triggers").Triggers[0]
	if is.Name != "nightly" || is.Route != "binding/nightly" || is.Schedule != "0 3 * * *" || is.TimeZone != "UTC" || !strings.HasSuffix(is.NextRun, "T03:00:00Z") || is.LastRun != "" {
		t.Errorf("it is %+v", is)
	}
	status, text := in.post(t, "-penstock/triggers/nightly/run", "")
	if status != http.StatusOK || !strings.Contains(text, `"outcome":"ack"`) {
		t.Errorf("run: %d %s", status, text)
	}
	if c := a.next(t, "/nightly"); c.header.Get("readTimeUTC") == "" || c.header.Get("scheduledTime") == "" {
		t.Errorf("the app got %v", c.header)
	}
	is = ask[triggers](t, in, "-penstock/triggers").Triggers[0]
	if is.LastOutcome != "ack" || !strings.HasPrefix(is.LastID, "nightly-asked-") || is.LastRun == "" {
		t.Errorf("then it is %+v", is)
	}
	seen := ask[struct{ Events []journal.Entry }](t, in, "-penstock/events?id="+is.LastID).Events
	if len(seen) != 1 || seen[0].Route != "binding/nightly" || len(seen[0].Tries) != 1 || seen[0].Tries[0].Target != "app:/nightly" || seen[0].Outcome != journal.Ack {
		t.Errorf("of it is known %+v", seen)
	}
	if status, _ := in.post(t, "-penstock/routes/pause/binding/nightly", ""); status != http.StatusNoContent || !ask[triggers](t, in, "-penstock/triggers").Triggers[0].Paused {
		t.Errorf("paused with %d, and not seen", status)
	}
	if status, text := in.post(t, "-penstock/triggers/hook/run", ""); status != http.StatusNotFound {
		t.Errorf("run a webhook: %d %s", status, text)
	}

	type webhooks struct{ Webhooks []api.Webhook }
	hook := ask[webhooks](t, in, "-penstock/webhooks").Webhooks[0]
	resp, err := http.Post(hook.URL, "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	hook = ask[webhooks](t, in, "-penstock/webhooks").Webhooks[0]
	if hook.Name != "hook" || hook.Route != "binding/hook" || hook.Signature != "hmac" || len(hook.Deliveries) != 1 || hook.Deliveries[0].Status != http.StatusUnauthorized {
		t.Errorf("it is %+v", hook)
	}
}

// TestUnderWay: an app that hangs is seen so, and who watches hears of the end.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	a, hang := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`), make(chan struct{})
	a.answer("/orders", func(http.ResponseWriter, *http.Request) { <-hang })
	in := start(t, a, bus)
	watch, err := http.Get(in.url + "-penstock/events/watch?route=subscription/*&payload=true")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	in.publish(t, "orders", `{"n": 1}`)
	a.next(t, "/orders")
	hanging := ask[struct{ Events []journal.Entry }](t, in, "-penstock/events?outcome=underway").Events
	if len(hanging) != 1 || hanging[0].Route != "subscription/bus/orders" || hanging[0].Tries[0].Outcome != journal.UnderWay || hanging[0].Tries[0].Duration <= 0 {
		t.Errorf("under way is %+v", hanging)
	}
	close(hang)
	lines := bufio.NewScanner(watch.Body)
	var e journal.Entry
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if e.ID != hanging[0].ID || e.Outcome != journal.Ack || string(e.Payload) != `{"n": 1}` {
		t.Errorf("seen %+v with %s", e, e.Payload)
	}
	if err := in.end(); err != nil {
		t.Errorf("the end: %v", err)
	}
	var text strings.Builder
	for lines.Scan() {
		text.WriteString(lines.Text() + "|")
	}
	if !strings.HasSuffix(text.String(), `event: end|data: {"reason":"watch events: the instance is stopping"}||`) {
		t.Errorf("the watch ends with %s", text.String())
	}
}
