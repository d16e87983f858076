package contract

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

const noBus = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: vault}\nspec: {type: secretstores.local.env, version: v1}\n"

func TestGRPCPublishAnswers(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses + scoped, flags: []string{"--max-body-size", "64Ki"}})
	_, none := startGRPC(t, nil, setup{resources: noBus})
	meta := func(k, v string) map[string]string { return map[string]string{k: v} }
	for _, row := range []struct {
		name string
		in   *rtv1.PublishEventRequest
		want want
	}{
		{"plain", &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Data: []byte("x")}, want{}},
		{"no data", &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a/b c"}, want{}},
		{"raw", &rtv1.PublishEventRequest{PubsubName: "db", Topic: "a", Metadata: meta("rawPayload", "true")}, want{}},
		{"delayed", &rtv1.PublishEventRequest{PubsubName: "db", Topic: "a", Metadata: meta("delay", "1h")}, want{}},
		{"no pubsub", &rtv1.PublishEventRequest{Topic: "a"}, want{codes.InvalidArgument, "DAPR_PUBSUB_NAME_EMPTY", "", "pubsub", "pubsub name is empty"}},
		{"unknown pubsub", &rtv1.PublishEventRequest{PubsubName: "nope", Topic: "a"}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_NOT_FOUND", in: "pubsub nope is not found"}},
		{"pubsub of another app", &rtv1.PublishEventRequest{PubsubName: "foreign", Topic: "a"}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_NOT_FOUND"}},
		{"no topic", &rtv1.PublishEventRequest{PubsubName: "mem"}, want{codes.InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "mem", "pubsub", "topic is empty in pubsub mem"}},
		{"bad ttl", &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Metadata: meta("ttlInSeconds", "soon")}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_METADATA_DESERIALIZATION"}},
		{"bad boolean", &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Metadata: meta("rawPayload", "maybe")}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_METADATA_DESERIALIZATION", in: "rawPayload"}},
		{"bad delay", &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Metadata: meta("delay", "soon")}, want{code: codes.InvalidArgument}},
		{"not an event", &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Data: []byte("{"), DataContentType: ceType}, want{codes.InvalidArgument, "DAPR_PUBSUB_CLOUD_EVENT_CREATION", "mem", "pubsub", ""}},
		{"scope of another app", &rtv1.PublishEventRequest{PubsubName: "scoped", Topic: "b"}, want{codes.PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", "scoped", "pubsub", "topic b is not allowed for app id shop"}},
		{"protected", &rtv1.PublishEventRequest{PubsubName: "scoped", Topic: "q"}, want{code: codes.PermissionDenied, reason: "DAPR_PUBSUB_FORBIDDEN"}},
		{"not allowed", &rtv1.PublishEventRequest{PubsubName: "scoped", Topic: "x"}, want{code: codes.PermissionDenied, reason: "DAPR_PUBSUB_FORBIDDEN"}},
		{"in scope", &rtv1.PublishEventRequest{PubsubName: "scoped", Topic: "p"}, want{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := client.PublishEvent(t.Context(), row.in)
			row.want.check(t, err)
		})
	}
	t.Run("no pubsub at all", func(t *testing.T) {
		t.Parallel()
		_, err := none.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a"})
		want{code: codes.FailedPrecondition, reason: "DAPR_PUBSUB_NOT_CONFIGURED", in: "pubsub mem is not configured"}.check(t, err)
	})
	t.Run("too large", func(t *testing.T) {
		t.Parallel()
		_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Data: make([]byte, 64<<10)})
		if got := code(err); got != codes.ResourceExhausted {
			t.Errorf("%s: %v", got, err)
		}
		_, err = client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Data: make([]byte, 64<<10-20)})
		want{}.check(t, err)
	})
}

// The same input over gRPC and over HTTP makes the same event.
func TestGRPCEnvelope(t *testing.T) {
	t.Parallel()
	var subs []string
	for i := range envelopes {
		subs = append(subs, fmt.Sprintf(`{"pubsubname":"mem","topic":"t/%d","route":"/mem/%d"}`, i, i), fmt.Sprintf(`{"pubsubname":"db","topic":"t/%d","route":"/db/%d"}`, i, i))
	}
	a := (&app{subscribe: "[" + strings.Join(subs, ",") + "]"}).serve(t)
	_, client := startGRPC(t, nil, setup{app: a.port, resources: buses})
	both(t, func(t *testing.T, bus string) {
		for i, row := range envelopes {
			t.Run(row.name, func(t *testing.T) {
				ctx := t.Context()
				for k, v := range row.header {
					ctx = metadata.AppendToOutgoingContext(ctx, k, v)
				}
				_, err := client.PublishEvent(ctx, &rtv1.PublishEventRequest{
					PubsubName: bus, Topic: fmt.Sprintf("t/%d", i), Data: []byte(row.body), DataContentType: row.contentType, Metadata: queryMetadata(t, row.query),
				})
				want{}.check(t, err)
				e := a.wait(t, fmt.Sprintf("/%s/%d", bus, i), 1)[0].event(t)
				checkCommon(t, e, bus, fmt.Sprintf("t/%d", i))
				got := map[string]string{}
				for name := range row.want {
					got[name] = string(e[name])
				}
				if diff := cmp.Diff(row.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				for _, name := range row.absent {
					if _, ok := e[name]; ok {
						t.Errorf("%s: %s", name, e[name])
					}
				}
			})
		}
	})
}

// queryMetadata reads request metadata as it stands in a query.
func queryMetadata(t *testing.T, query string) map[string]string {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range values {
		out[strings.TrimPrefix(k, "metadata.")] = v[0]
	}
	return out
}

func TestGRPCBulkPublish(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/mem"},{"pubsubname":"db","topic":"a","route":"/db"},
		{"pubsubname":"mem","topic":"raw","route":"/raw","metadata":{"rawPayload":"true"}}]`}).serve(t)
	_, client := startGRPC(t, nil, setup{app: a.port, resources: buses})
	both(t, func(t *testing.T, bus string) {
		r, err := client.BulkPublishEvent(t.Context(), &rtv1.BulkPublishRequest{
			PubsubName: bus, Topic: "a", Metadata: map[string]string{"cloudevent.subject": "all"},
			Entries: []*rtv1.BulkPublishRequestEntry{
				{EntryId: "1", Event: []byte(`{"n":1.10}`), ContentType: "application/json"},
				{EntryId: "2", Event: []byte(`text`), ContentType: "text/plain"},
				{EntryId: "3", Event: []byte("\x00\xff"), ContentType: "application/octet-stream", Metadata: map[string]string{"cloudevent.subject": "own"}},
				{EntryId: "4", Event: []byte(`{"id":"e4","data":"x"}`), ContentType: ceType},
				{EntryId: "5", Event: []byte(`bare`)},
			},
		})
		want{}.check(t, err)
		if n := len(r.GetFailedEntries()); n > 0 {
			t.Errorf("%d entries failed", n)
		}
		got := map[string]string{}
		for _, c := range a.wait(t, "/"+bus, 5) {
			e := c.event(t)
			got[string(e["data"])+string(e["data_base64"])] = string(e["subject"])
		}
		wanted := map[string]string{`{"n":1.10}`: `"all"`, `"text"`: `"all"`, `"AP8="`: `"own"`, `"x"`: `"all"`, `"bare"`: `"all"`}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("data and subject (-want +got):\n%s", diff)
		}
	})
	t.Run("raw by the old name", func(t *testing.T) {
		t.Parallel()
		_, err := byOldName(client).BulkPublishEventAlpha1(t.Context(), &rtv1.BulkPublishRequest{
			PubsubName: "mem", Topic: "raw", Metadata: map[string]string{"rawPayload": "true"},
			Entries: []*rtv1.BulkPublishRequestEntry{{EntryId: "1", Event: []byte("\xffraw"), ContentType: "application/json"}},
		})
		want{}.check(t, err)
		if got := string(a.wait(t, "/raw", 1)[0].event(t)["data_base64"]); got != `"/3Jhdw=="` {
			t.Errorf("got %s", got)
		}
	})
}

func TestGRPCBulkPublishAnswers(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses + scoped})
	_, none := startGRPC(t, nil, setup{resources: noBus})
	one := []*rtv1.BulkPublishRequestEntry{{EntryId: "1", Event: []byte("x")}}
	for _, row := range []struct {
		name string
		in   *rtv1.BulkPublishRequest
		want want
	}{
		{"nothing", &rtv1.BulkPublishRequest{PubsubName: "mem", Topic: "a"}, want{}},
		{"one", &rtv1.BulkPublishRequest{PubsubName: "mem", Topic: "a", Entries: one}, want{}},
		{"no pubsub", &rtv1.BulkPublishRequest{Topic: "a", Entries: one}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_NAME_EMPTY"}},
		{"unknown pubsub", &rtv1.BulkPublishRequest{PubsubName: "nope", Topic: "a", Entries: one}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_NOT_FOUND"}},
		{"no topic", &rtv1.BulkPublishRequest{PubsubName: "mem", Entries: one}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_TOPIC_NAME_EMPTY"}},
		{"denied", &rtv1.BulkPublishRequest{PubsubName: "scoped", Topic: "x", Entries: one}, want{code: codes.PermissionDenied, reason: "DAPR_PUBSUB_FORBIDDEN"}},
		{"no entry id", &rtv1.BulkPublishRequest{PubsubName: "mem", Topic: "a", Entries: []*rtv1.BulkPublishRequestEntry{{Event: []byte("x")}}}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_MARSHAL_EVENTS"}},
		{"entry id twice", &rtv1.BulkPublishRequest{PubsubName: "mem", Topic: "a", Entries: append(one, one...)}, want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_MARSHAL_EVENTS"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := client.BulkPublishEvent(t.Context(), row.in)
			row.want.check(t, err)
			_, err = byOldName(client).BulkPublishEventAlpha1(t.Context(), row.in)
			row.want.check(t, err)
		})
	}
	t.Run("no pubsub at all", func(t *testing.T) {
		t.Parallel()
		_, err := none.BulkPublishEvent(t.Context(), &rtv1.BulkPublishRequest{PubsubName: "mem", Topic: "a", Entries: one})
		want{code: codes.FailedPrecondition, reason: "DAPR_PUBSUB_NOT_CONFIGURED"}.check(t, err)
	})
	t.Run("in part", func(t *testing.T) {
		t.Parallel()
		r, err := client.BulkPublishEvent(t.Context(), &rtv1.BulkPublishRequest{PubsubName: "db", Topic: "a", Entries: []*rtv1.BulkPublishRequestEntry{
			{EntryId: "good"}, {EntryId: "bad", Metadata: map[string]string{"ttlInSeconds": "x"}},
		}})
		want{}.check(t, err)
		if f := r.GetFailedEntries(); len(f) != 1 || f[0].GetEntryId() != "bad" || f[0].GetError() == "" {
			t.Errorf("failed: %v", f)
		}
	})
}

// The details of an error say what was asked for, as Dapr's do.
func TestGRPCErrorMetadata(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses + scoped})
	_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "scoped", Topic: "x"})
	got := infoOf(err)
	if got["topic"] != "x" || got["error"] == "" {
		t.Errorf("denied: %v", got)
	}
	_, err = client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Metadata: map[string]string{"mine": "1"}})
	if got = infoOf(err); got["mine"] != "1" {
		t.Errorf("no topic: %v", got)
	}
	_, err = client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Data: []byte("{"), DataContentType: ceType})
	if got = infoOf(err); got["appID"] != "shop" || got["error"] == "" {
		raw, _ := json.Marshal(got)
		t.Errorf("not an event: %s", raw)
	}
}
