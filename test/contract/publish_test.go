package contract

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const scoped = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: scoped}
spec:
  type: pubsub.in-memory
  version: v1
  metadata:
  - {name: allowedTopics, value: "a,b,p,q,in,gone"}
  - {name: protectedTopics, value: "p,q"}
  - {name: publishingScopes, value: "shop=a,p;other=b,q"}
  - {name: subscriptionScopes, value: "shop=in;other="}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: foreign}
spec:
  type: pubsub.in-memory
  version: v1
scopes: [other]
---
`

func TestPublishAnswers(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses + scoped, flags: []string{"--max-body-size", "64Ki"}})
	none := start(t, setup{resources: "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: vault}\nspec: {type: secretstores.local.env, version: v1}\n"})
	for _, row := range []struct {
		name, method, path, body string
		status                   int
		code, reason             string
	}{
		{"post", "POST", "/publish/mem/a", "x", 204, "", ""},
		{"put", "PUT", "/publish/mem/a", "x", 204, "", ""},
		{"no body", "POST", "/publish/mem/a", "", 204, "", ""},
		{"topic with slashes", "POST", "/publish/mem/a/b/c", "x", 204, "", ""},
		{"topic escaped", "POST", "/publish/mem/a%2Fb%20c", "x", 204, "", ""},
		{"get", "GET", "/publish/mem/a", "", 405, "ERR_METHOD_NOT_ALLOWED", ""},
		{"unknown pubsub", "POST", "/publish/nope/a", "x", 404, "ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND"},
		{"component of another app", "POST", "/publish/foreign/a", "x", 404, "ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND"},
		{"no topic", "POST", "/publish/mem", "x", 404, "ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY"},
		{"empty topic", "POST", "/publish/mem/", "x", 404, "ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY"},
		{"empty pubsub", "POST", "/publish//a", "x", 404, "ERR_PUBSUB_EMPTY", "DAPR_PUBSUB_NAME_EMPTY"},
		{"bad ttl", "POST", "/publish/mem/a?metadata.ttlInSeconds=soon", "x", 400, "ERR_PUBSUB_REQUEST_METADATA", "DAPR_PUBSUB_METADATA_DESERIALIZATION"},
		{"bad boolean", "POST", "/publish/mem/a?metadata.rawPayload=maybe", "x", 400, "ERR_PUBSUB_REQUEST_METADATA", "DAPR_PUBSUB_METADATA_DESERIALIZATION"},
		{"allowed and in scope", "POST", "/publish/scoped/a", "x", 204, "", ""},
		{"protected and in scope", "POST", "/publish/scoped/p", "x", 204, "", ""},
		{"scope of another app", "POST", "/publish/scoped/b", "x", 403, "ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN"},
		{"protected", "POST", "/publish/scoped/q", "x", 403, "ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN"},
		{"not allowed", "POST", "/publish/scoped/x", "x", 403, "ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN"},
		{"body too large", "POST", "/publish/mem/a", strings.Repeat("x", 64<<10+1), 400, "ERR_BODY_READ", ""},
		{"body as large as may be", "POST", "/publish/mem/a", strings.Repeat("x", 64<<10), 204, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			checkProblem(t, send(t, request{method: row.method, url: sc.api + row.path, body: row.body}), row.status, row.code, row.reason)
		})
	}
	t.Run("not an event", func(t *testing.T) {
		t.Parallel()
		r := send(t, request{url: sc.api + "/publish/mem/a", contentType: ceType, body: "{"})
		checkProblem(t, r, 500, "ERR_PUBSUB_CLOUD_EVENTS_SER", "DAPR_PUBSUB_CLOUD_EVENT_CREATION")
	})
	t.Run("no pubsub at all", func(t *testing.T) {
		t.Parallel()
		checkProblem(t, send(t, request{url: none.api + "/publish/mem/a"}), 400, "ERR_PUBSUB_NOT_CONFIGURED", "DAPR_PUBSUB_NOT_CONFIGURED")
	})
}

func checkProblem(t *testing.T, r response, status int, code, reason string) {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	if code == "" {
		if r.body != "" {
			t.Errorf("body %q", r.body)
		}
		return
	}
	if gotCode, gotReason := r.problem(t); gotCode != code || gotReason != reason {
		t.Errorf("got %s %s, want %s %s", gotCode, gotReason, code, reason)
	}
}

func TestBulkPublish(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/mem"},{"pubsubname":"db","topic":"a","route":"/db"}]`}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	both(t, func(t *testing.T, bus string) {
		r := send(t, request{
			method: "PUT", url: sc.api + "/publish/bulk/" + bus + "/a?metadata.cloudevent.subject=all", contentType: "application/json",
			body: `[{"entryId":"1","event":{"n":1.10},"contentType":"application/json"},
				{"entryID":"2","event":"text","contentType":"text/plain"},
				{"EntryId":"3","event":"AP8=","contentType":"application/octet-stream","metadata":{"cloudevent.subject":"own"}},
				{"entryid":"4","event":{"id":"e4","data":"x"},"contentType":"application/cloudevents+json"}]`,
		})
		checkProblem(t, r, 204, "", "")
		got := map[string]string{}
		for _, c := range a.wait(t, "/"+bus, 4) {
			e := c.event(t)
			got[string(e["data"])+string(e["data_base64"])] = string(e["subject"])
		}
		want := map[string]string{`{"n":1.10}`: `"all"`, `"text"`: `"all"`, `"AP8="`: `"own"`, `"x"`: `"all"`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("data and subject (-want +got):\n%s", diff)
		}
	})
}

func TestBulkPublishAnswers(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses})
	for _, row := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"old path", "-alpha1/publish/bulk/mem/x", `[{"entryId":"1","event":"x"}]`, 204, ""},
		{"nothing", "/publish/bulk/mem/x", `[]`, 204, ""},
		{"no entryId", "/publish/bulk/mem/x", `[{"event":"x"}]`, 400, "ERR_PUBSUB_EVENTS_SER"},
		{"entryId twice", "/publish/bulk/mem/x", `[{"entryId":"1","event":1},{"entryId":"1","event":2}]`, 400, "ERR_PUBSUB_EVENTS_SER"},
		{"no array", "/publish/bulk/mem/x", `{}`, 400, "ERR_PUBSUB_EVENTS_SER"},
		{"broken", "/publish/bulk/mem/x", `[{"entryId"`, 400, "ERR_PUBSUB_EVENTS_SER"},
		{"unknown pubsub", "/publish/bulk/nope/x", `[{"entryId":"1","event":1}]`, 404, "ERR_PUBSUB_NOT_FOUND"},
		{"bus called bulk", "/publish/bulk/x", `x`, 404, "ERR_PUBSUB_NOT_FOUND"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := send(t, request{url: sc.api + row.path, contentType: "application/json", body: row.body})
			if r.status != row.status {
				t.Fatalf("status %d: %s", r.status, r.body)
			}
			if row.code != "" {
				if code, _ := r.problem(t); code != row.code {
					t.Errorf("code %s, want %s", code, row.code)
				}
			}
		})
	}
	t.Run("in part", func(t *testing.T) {
		t.Parallel()
		r := send(t, request{
			url: sc.api + "/publish/bulk/db/x", contentType: "application/json",
			body: `[{"entryId":"good","event":1},{"entryId":"bad","event":2,"metadata":{"ttlInSeconds":"x"}}]`,
		})
		var body struct {
			Failed []struct {
				ID    string `json:"entryId"`
				Error string `json:"error"`
			} `json:"failedEntries"`
			Code string `json:"errorCode"`
		}
		if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.status != 500 {
			t.Fatalf("%d %s: %v", r.status, r.body, err)
		}
		if body.Code != "ERR_PUBSUB_PUBLISH_MESSAGE" || len(body.Failed) != 1 || body.Failed[0].ID != "bad" || body.Failed[0].Error == "" {
			t.Errorf("body %s", r.body)
		}
	})
}
