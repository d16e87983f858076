package grpc_test

import (
	"slices"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	apigrpc "github.com/penstock-io/penstock/api/grpc"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// What is published has the same envelope as over HTTP.
func TestPublish(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent, "tracestate", "a=1", "baggage", "k=v")
	_, err := c.PublishEvent(ctx, &rtv1.PublishEventRequest{
		PubsubName: "bus", Topic: "orders", Data: []byte(`{"n":1.0}`), DataContentType: "application/json",
		Metadata: map[string]string{"cloudevent.id": "7", "cloudevent.type": "made"},
	})
	must(t, err)
	_, err = c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "bus", Topic: "orders"})
	must(t, err)
	events := i.broker.events(t)
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	got := map[string]string{"data": string(e.Data())}
	for name, value := range e.Attrs() {
		if name != "time" {
			got[name] = value
		}
	}
	want := map[string]string{
		"data": `{"n":1.0}`, "id": "7", "type": "made", "source": "shop", "specversion": "1.0", "datacontenttype": "application/json",
		"topic": "orders", "pubsubname": "bus", "traceid": parent, "traceparent": parent, "tracestate": "a=1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if empty := events[1]; len(empty.Data()) != 0 || empty.ID() == "" {
		t.Errorf("an event without data is %s", empty.JSON())
	}
}

// The binary trace context of older clients wins over what else there is; a
// wrong one is not looked at.
func TestBinaryTrace(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	bin := "\x00\x00" + strings.Repeat("\xab", 16) + "\x01" + strings.Repeat("\xcd", 8) + "\x02\x01"
	for _, b := range []string{bin, "\x00\x00rubbish", "\x00\x00" + strings.Repeat("\x00", 16) + bin[18:]} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "grpc-trace-bin", b, "traceparent", parent)
		_, err := c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "bus", Topic: "t", Data: []byte("x")})
		must(t, err)
	}
	want := []string{"00-" + strings.Repeat("ab", 16) + "-" + strings.Repeat("cd", 8) + "-01", parent}
	events := i.broker.events(t)
	for n, w := range want {
		if got, _ := events[n].Attr("traceparent"); got != w {
			t.Errorf("traceparent %d is %q, want %q", n, got, w)
		}
	}
	if got, _ := events[2].Attr("traceparent"); strings.Contains(got, strings.Repeat("00", 16)) {
		t.Errorf("a trace of zeros is taken over: %q", got)
	}
}

func TestBulkPublish(t *testing.T) {
	t.Parallel()
	i := open(t)
	conn := serve(t, i, apigrpc.Options{}).conn(t)
	c := rtv1.NewDaprClient(conn)
	in := &rtv1.BulkPublishRequest{
		PubsubName: "bus", Topic: "t", Metadata: map[string]string{"cloudevent.type": "all"},
		Entries: []*rtv1.BulkPublishRequestEntry{
			{EntryId: "1", Event: []byte(`{"n":1}`), ContentType: "application/json"},
			{EntryId: "2", Event: []byte("poison"), ContentType: "text/plain"},
			{EntryId: "3", Event: []byte{0xff, 0x00}, ContentType: "application/octet-stream", Metadata: map[string]string{"cloudevent.type": "one"}},
		},
	}
	for _, method := range []string{"BulkPublishEvent", "BulkPublishEventAlpha1"} { // the old name is deprecated, and still called
		out := new(rtv1.BulkPublishResponse)
		must(t, conn.Invoke(t.Context(), "/dapr.proto.runtime.v1.Dapr/"+method, in, out))
		if len(out.GetFailedEntries()) != 1 || out.GetFailedEntries()[0].GetEntryId() != "2" || !strings.Contains(out.GetFailedEntries()[0].GetError(), "poison") {
			t.Errorf("answer is %v", out)
		}
	}
	in.Topic = "down"
	out, err := c.BulkPublishEvent(t.Context(), in)
	must(t, err)
	if len(out.GetFailedEntries()) != 3 {
		t.Errorf("with the broker down: %v", out)
	}
	events := i.broker.events(t)
	if len(events) != 4 {
		t.Fatalf("%d events", len(events))
	}
	if string(events[0].Data()) != `{"n":1}` || events[0].Type() != "all" {
		t.Errorf("entry 1 is %s", events[0].JSON())
	}
	if string(events[1].Data()) != "\xff\x00" || events[1].Type() != "one" {
		t.Errorf("entry 3 is %s", events[1].JSON())
	}
}

func TestInvokeBinding(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent, "tracestate", "a=1")
	out, err := c.InvokeBinding(ctx, &rtv1.InvokeBindingRequest{
		Name: "out", Operation: "echo", Data: []byte{0xff}, Metadata: map[string]string{"k": "v"},
	})
	must(t, err)
	want := &rtv1.InvokeBindingResponse{Data: []byte{0xff}, Metadata: map[string]string{"operation": "echo", "bad": "\uFFFD"}}
	if diff := cmp.Diff(want, out, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	out, err = c.InvokeBinding(t.Context(), &rtv1.InvokeBindingRequest{Name: "out", Operation: "create"})
	must(t, err)
	if len(out.GetData())+len(out.GetMetadata()) > 0 {
		t.Errorf("a binding that says nothing: %v", out)
	}
	got := i.output.calls[0].Metadata
	if diff := cmp.Diff(map[string]string{"k": "v", "traceparent": parent, "tracestate": "a=1"}, got); diff != "" {
		t.Errorf("metadata: -want +got\n%s", diff)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	one, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "vault", Key: "a/b"})
	must(t, err)
	if diff := cmp.Diff(map[string]string{"user": "u", "password": "p"}, one.GetData()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	all, err := c.GetBulkSecret(t.Context(), &rtv1.GetBulkSecretRequest{StoreName: "vault"})
	must(t, err)
	want := map[string]*rtv1.SecretResponse{
		"db": {Secrets: map[string]string{"db": "s3cret"}}, "a/b": {Secrets: map[string]string{"user": "u", "password": "p"}},
	}
	if diff := cmp.Diff(want, all.GetData(), protocmp.Transform()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestSecretsOfARequestWithMetadata(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	one, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "vault", Key: "db", Metadata: map[string]string{"version_id": "4"}})
	must(t, err)
	if got := one.GetData()["db"]; got != "s3cret of 4" {
		t.Errorf("got %q", got)
	}
	all, err := c.GetBulkSecret(t.Context(), &rtv1.GetBulkSecretRequest{StoreName: "vault", Metadata: map[string]string{"prefix": "d"}})
	must(t, err)
	if got := all.GetData()["db"].GetSecrets()["db"]; got != "s3cret" || len(all.GetData()) != 1 {
		t.Errorf("got %v", all)
	}
}

// Whatever a denied secret is called, its value does not get out.
func TestDeniedSecretStaysIn(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	for _, key := range []string{"hidden", "HIDDEN", "hidden ", "hidden.", "hidde%6E", "./hidden", "db/../hidden", "hidden\x00", ""} {
		got, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "vault", Key: key})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v, %v", key, got, err)
		}
		if strings.EqualFold(key, "hidden") && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%q: %v", key, err)
		}
	}
	all, err := c.GetBulkSecret(t.Context(), &rtv1.GetBulkSecretRequest{StoreName: "vault"})
	must(t, err)
	if strings.Contains(all.String(), "canary") {
		t.Errorf("bulk: %v", all)
	}
}

// The answer says all that the HTTP document says, as far as it has a place.
func TestMetadata(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	_, err := c.SetMetadata(t.Context(), &rtv1.SetMetadataRequest{Key: "colour", Value: "green"})
	must(t, err)
	got, err := c.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	must(t, err)
	want := new(rtv1.GetMetadataResponse)
	must(t, protojson.Unmarshal([]byte(`{
		"id": "shop", "runtimeVersion": "1.18.0", "enabledFeatures": ["f"],
		"extended": {"daprRuntimeVersion": "1.18.0", "colour": "green"},
		"components": [{"name": "bus", "type": "pubsub.fake", "version": "v1", "capabilities": ["MESSAGE_TTL"]}],
		"subscriptions": [{"pubsubname": "bus", "topic": "orders", "metadata": {"rawPayload": "true"}, "deadLetterTopic": "dead", "type": "PROGRAMMATIC",
			"rules": {"rules": [{"match": "event.type == 'a'", "path": "/a"}, {"path": "/orders"}]}}],
		"httpEndpoints": [{"name": "e"}], "mcpServers": [{"name": "m"}], "workflowAccessPolicies": [{"name": "p"}], "resiliencies": [{"name": "r"}],
		"appConnectionProperties": {"port": 8080, "protocol": "http", "channelAddress": "127.0.0.1", "maxConcurrency": 7,
			"health": {"healthCheckPath": "/healthz", "healthProbeInterval": "5s", "healthProbeTimeout": "500ms", "healthThreshold": 3}},
		"actorRuntime": {"runtimeStatus": "RUNNING", "activeActors": [{"type": "cat", "count": 2}], "hostReady": true, "placement": "connected"},
		"scheduler": {"connectedAddresses": ["s:1"]}, "workflows": {"connectedWorkers": 3}
	}`), want))
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	for _, force := range []string{"", "true"} {
		c, i := client(t)
		ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-force-shutdown", force)
		_, err := c.Shutdown(ctx, &rtv1.ShutdownRequest{})
		must(t, err)
		if got := <-i.stopped; got != (force == "true") {
			t.Errorf("forced is %v with %q", got, force)
		}
	}
}

// problem is a call that fails and what its status says.
type problem struct {
	name     string
	call     func() error
	code     codes.Code
	reason   string
	resource string // type and name
	message  string
}

// Every problem has Dapr's status code and details.
func TestProblems(t *testing.T) {
	t.Parallel()
	c := serve(t, open(t), apigrpc.Options{}).dial(t)
	bare := serve(t, &instance{empty: true}, apigrpc.Options{}).dial(t)
	for _, p := range slices.Concat(publishProblems(t, c, bare), otherProblems(t, c, bare)) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.check(t)
		})
	}
}

func (tt *problem) check(t *testing.T) {
	t.Helper()
	st := status.Convert(tt.call())
	if st.Code() != tt.code || !strings.Contains(st.Message(), tt.message) {
		t.Errorf("%v: %s; want %v with %q in it", st.Code(), st.Message(), tt.code, tt.message)
	}
	var info *errdetails.ErrorInfo
	resource := ""
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.ResourceInfo:
			resource = d.GetResourceType() + " " + d.GetResourceName()
		}
	}
	if info.GetReason() != tt.reason || info.GetDomain() != "dapr.io" || resource != tt.resource {
		t.Errorf("details %v %q, want %s %q", info, resource, tt.reason, tt.resource)
	}
}

func publishProblems(t *testing.T, c, bare rtv1.DaprClient) []problem {
	publish := func(c rtv1.DaprClient, bus, topic string, metadata map[string]string) func() error {
		return func() error {
			_, err := c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: bus, Topic: topic, Data: []byte("x"), Metadata: metadata})
			return err
		}
	}
	bulk := func(topic string, ids ...string) func() error {
		in := &rtv1.BulkPublishRequest{PubsubName: "bus", Topic: topic}
		for _, id := range ids {
			in.Entries = append(in.Entries, &rtv1.BulkPublishRequestEntry{EntryId: id, Event: []byte("x")})
		}
		return func() error { _, err := c.BulkPublishEvent(t.Context(), in); return err }
	}
	return []problem{
		{"no pubsub at all", publish(bare, "bus", "t", nil), codes.FailedPrecondition, "DAPR_PUBSUB_NOT_CONFIGURED", "", "pubsub bus is not configured"},
		{"pubsub unknown", publish(c, "gone", "t", nil), codes.InvalidArgument, "DAPR_PUBSUB_NOT_FOUND", "", "pubsub gone is not found"},
		{"pubsub empty", publish(c, "", "t", nil), codes.InvalidArgument, "DAPR_PUBSUB_NAME_EMPTY", "pubsub ", "name is empty"},
		{"topic empty", publish(c, "bus", "", nil), codes.InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "pubsub bus", "topic is empty"},
		{"topic denied", publish(c, "bus", "secret", nil), codes.PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", "pubsub bus", "not allowed"},
		{"metadata", publish(c, "bus", "t", map[string]string{"ttlInSeconds": "x"}), codes.InvalidArgument, "DAPR_PUBSUB_METADATA_DESERIALIZATION", "pubsub bus", "ttl"},
		{"broker down", publish(c, "bus", "down", nil), codes.Internal, "DAPR_PUBSUB_PUBLISH_MESSAGE", "pubsub bus", "broker is down"},
		{"bulk id empty", bulk("t", "1", ""), codes.InvalidArgument, "DAPR_PUBSUB_MARSHAL_EVENTS", "pubsub bus", "entry 1 has no entryId"},
		{"bulk id twice", bulk("t", "1", "1"), codes.InvalidArgument, "DAPR_PUBSUB_MARSHAL_EVENTS", "pubsub bus", `"1" is used twice`},
		{"bulk topic denied", bulk("secret", "1"), codes.PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", "pubsub bus", "not allowed"},
		{"panic", publish(c, "bus", "panics", nil), codes.Internal, "ERR_INTERNAL", "", "internal error"},
	}
}

func otherProblems(t *testing.T, c, bare rtv1.DaprClient) []problem {
	secret := func(c rtv1.DaprClient, store, key string) func() error {
		return func() error {
			_, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: store, Key: key})
			return err
		}
	}
	return []problem{
		{"binding unknown", func() error {
			_, err := c.InvokeBinding(t.Context(), &rtv1.InvokeBindingRequest{Name: "gone", Operation: "create"})
			return err
		}, codes.Internal, "ERR_INVOKE_OUTPUT_BINDING", "binding gone", "gone"},
		{"binding fails", func() error {
			_, err := c.InvokeBinding(t.Context(), &rtv1.InvokeBindingRequest{Name: "out", Operation: "fail"})
			return err
		}, codes.Internal, "ERR_INVOKE_OUTPUT_BINDING", "binding out", "too slow"},
		{"no secret store at all", secret(bare, "vault", "db"), codes.FailedPrecondition, "ERR_SECRET_STORES_NOT_CONFIGURED", "secretstore vault", "no secret store"},
		{"secret store unknown", secret(c, "gone", "db"), codes.InvalidArgument, "ERR_SECRET_STORE_NOT_FOUND", "secretstore gone", "gone"},
		{"secret unknown", secret(c, "vault", "gone"), codes.Internal, "ERR_SECRET_GET", "secretstore vault", "no such secret"},
		{"secret denied", secret(c, "vault", "hidden"), codes.PermissionDenied, "ERR_PERMISSION_DENIED", "secretstore vault", "hidden"},
		{"metadata key empty", func() error {
			_, err := c.SetMetadata(t.Context(), &rtv1.SetMetadataRequest{})
			return err
		}, codes.InvalidArgument, "ERR_BAD_REQUEST", "", "key is empty"},
		{"baggage", func() error {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "baggage", "no pair")
			_, err := c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "bus", Topic: "t"})
			return err
		}, codes.InvalidArgument, "ERR_BAD_REQUEST", "", "baggage"},
		{"not in this build", func() error {
			_, err := c.InvokeActor(t.Context(), &rtv1.InvokeActorRequest{ActorType: "a", ActorId: "1", Method: "m"})
			return err
		}, codes.Unimplemented, "ERR_API_UNIMPLEMENTED", "", "the method InvokeActor is not in this build of Penstock"},
	}
}

// A pause that the broker asks for reaches the client.
func TestRetryInfo(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	_, err := c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "bus", Topic: "down"})
	for _, d := range status.Convert(err).Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok && retry.GetRetryDelay().AsDuration().String() == "1.5s" {
			return
		}
	}
	t.Errorf("no RetryInfo of 1.5s in %v", status.Convert(err).Details())
}

// An error about a huge or binary name is short enough for every client.
func TestLongError(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	_, err := c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: strings.Repeat("ä", 1<<20), Topic: strings.Repeat("t", 1<<20)})
	st := status.Convert(err)
	if st.Code() != codes.InvalidArgument || len(st.Message()) > 1024 || len(st.Details()) != 1 {
		t.Errorf("%v, %d bytes, %d details", st.Code(), len(st.Message()), len(st.Details()))
	}
}
