package contract

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// The parts of an event in Dapr's message.
var topicEvents = []struct {
	name, contentType string
	data              []byte
	metadata          map[string]string
	want              *rtv1.TopicEventRequest
	extensions        map[string]any // among others
}{
	{"json", "application/json", []byte(`{"b":1.0,"a":12345678901234567890123}`), nil, &rtv1.TopicEventRequest{
		Source: "shop", Type: "com.dapr.event.sent", DataContentType: "application/json", Data: []byte(`{"b":1.0,"a":12345678901234567890123}`),
	}, nil},
	{"json text", "application/json", []byte(`"x"`), nil, &rtv1.TopicEventRequest{
		Source: "shop", Type: "com.dapr.event.sent", DataContentType: "application/json", Data: []byte(`"x"`),
	}, nil},
	{"text", "text/plain", []byte(`hi "you"`), nil, &rtv1.TopicEventRequest{
		Source: "shop", Type: "com.dapr.event.sent", DataContentType: "text/plain", Data: []byte(`hi "you"`),
	}, nil},
	{"no content type", "", []byte(`hi`), nil, &rtv1.TopicEventRequest{
		Source: "shop", Type: "com.dapr.event.sent", DataContentType: "text/plain", Data: []byte(`hi`),
	}, nil},
	{"bytes", "application/octet-stream", []byte("\x00\xff"), nil, &rtv1.TopicEventRequest{
		Source: "shop", Type: "com.dapr.event.sent", DataContentType: "application/octet-stream", Data: []byte("\x00\xff"),
	}, nil},
	{"xml", "application/xml", []byte("<a/>"), nil, &rtv1.TopicEventRequest{
		Source: "shop", Type: "com.dapr.event.sent", DataContentType: "application/xml", Data: []byte("<a/>"),
	}, nil},
	{
		"overrides", "text/plain", []byte("x"),
		map[string]string{"cloudevent.id": "i", "cloudevent.source": "so", "cloudevent.type": "ty", "cloudevent.subject": "su", "cloudevent.traceparent": parent, "cloudevent.tracestate": "k=v"},
		&rtv1.TopicEventRequest{Id: "i", Source: "so", Type: "ty", DataContentType: "text/plain", Data: []byte("x")},
		map[string]any{"subject": "su", "traceparent": parent, "traceid": parent, "tracestate": "k=v"},
	},
	{
		"event of its own", ceType, []byte(`{"specversion":"1.0","id":"e1","source":"mine","type":"t.x","time":"2020-01-02T03:04:05Z","datacontenttype":"application/json","number":7,"negative":-1,"yes":true,"no":false,"word":"w","topic":"other","data":{"n":1.50}}`), nil,
		&rtv1.TopicEventRequest{Id: "e1", Source: "mine", Type: "t.x", DataContentType: "application/json", Data: []byte(`{"n":1.50}`)},
		map[string]any{"number": 7.0, "negative": -1.0, "yes": true, "no": false, "word": "w", "time": "2020-01-02T03:04:05Z"},
	},
	{
		"event with any members", ceType, []byte(`{"specversion":"1.0","id":"e4","source":"mine","type":"t.x","my_attr":1.5,"Meta":{"a":[1]},"x-y":"z","no_thing":null}`), nil,
		&rtv1.TopicEventRequest{Id: "e4", Source: "mine", Type: "t.x"},
		map[string]any{"my_attr": 1.5, "Meta": map[string]any{"a": []any{1.0}}, "x-y": "z", "no_thing": nil},
	},
	{"event without data", ceType, []byte(`{"specversion":"1.0","id":"e2","source":"mine","type":"t.x"}`), nil, &rtv1.TopicEventRequest{Id: "e2", Source: "mine", Type: "t.x"}, nil},
	{"event with bytes", ceType, []byte(`{"specversion":"1.0","id":"e3","source":"mine","type":"t.x","datacontenttype":"image/png","data_base64":"AP8="}`), nil, &rtv1.TopicEventRequest{
		Id: "e3", Source: "mine", Type: "t.x", DataContentType: "image/png", Data: []byte("\x00\xff"),
	}, nil},
}

func TestGRPCTopicEvent(t *testing.T) {
	t.Parallel()
	a := &grpcApp{}
	for i := range topicEvents {
		a.topics = append(a.topics, eachBus(topic("", fmt.Sprintf("t/%d", i), fmt.Sprintf("/%d", i)))...)
	}
	a.serve(t)
	_, client := startGRPC(t, a, setup{resources: buses})
	both(t, func(t *testing.T, bus string) {
		for i, row := range topicEvents {
			t.Run(row.name, func(t *testing.T) {
				name := fmt.Sprintf("t/%d", i)
				_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{
					PubsubName: bus, Topic: name, Data: row.data, DataContentType: row.contentType, Metadata: row.metadata,
				})
				want{}.check(t, err)
				path := fmt.Sprintf("/%s/%d", bus, i)
				got := proto.CloneOf(a.wait(t, "event "+path, 1)[0].event)
				extensions := got.GetExtensions().AsMap()
				checkExtensions(t, extensions, bus, name, row.extensions)
				wanted := proto.CloneOf(row.want)
				wanted.Topic, wanted.PubsubName, wanted.Path, wanted.SpecVersion = name, bus, path, "1.0"
				if wanted.Id == "" && got.GetId() != "" {
					wanted.Id = got.GetId()
				}
				got.Extensions = nil
				if diff := cmp.Diff(wanted, got, protocmp.Transform()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	})
}

func checkExtensions(t *testing.T, got map[string]any, bus, topic string, more map[string]any) {
	t.Helper()
	for _, name := range []string{"id", "source", "type", "specversion", "datacontenttype", "data", "data_base64"} {
		if v, ok := got[name]; ok {
			t.Errorf("extension %s: %v", name, v)
		}
	}
	if got["topic"] != topic || got["pubsubname"] != bus {
		t.Errorf("extensions say topic %v of %v", got["topic"], got["pubsubname"])
	}
	for _, name := range []string{"time", "traceparent", "traceid"} {
		if v, ok := got[name].(string); !ok || v == "" {
			t.Errorf("extension %s: %v", name, got[name])
		}
	}
	for name, v := range more {
		if is, ok := got[name]; !ok || !cmp.Equal(v, is) {
			t.Errorf("extension %s: %v, want %v", name, is, v)
		}
	}
}

// What does not come in an envelope is wrapped in a fresh one, whose data are
// the bytes.
func TestGRPCRawPayload(t *testing.T) {
	t.Parallel()
	a := &grpcApp{topics: eachBus(&rtv1.TopicSubscription{Topic: "raw", Metadata: map[string]string{"rawPayload": "true"}, Routes: &rtv1.TopicRoutes{Default: "/raw"}})}
	a.serve(t)
	_, client := startGRPC(t, a, setup{resources: buses})
	both(t, func(t *testing.T, bus string) {
		_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{
			PubsubName: bus, Topic: "raw", Data: []byte("\xff\x00raw"), Metadata: map[string]string{"rawPayload": "true", "tenant": "t1"},
		})
		want{}.check(t, err)
		c := a.wait(t, "event /"+bus+"/raw", 1)[0]
		if string(c.event.GetData()) != "\xff\x00raw" || c.event.GetId() == "" || c.event.GetSpecVersion() != "1.0" ||
			c.event.GetType() != "com.dapr.event.sent" || c.event.GetDataContentType() != "application/octet-stream" {
			t.Errorf("got %v", c.event)
		}
		if got := c.md.Get("tenant"); len(got) != 1 || got[0] != "t1" {
			t.Errorf("metadata %v", c.md)
		}
	})
}

// The app gets its token, the trace in both forms, and no other token.
func TestGRPCMetadataToTheApp(t *testing.T) {
	t.Parallel()
	a := (&grpcApp{topics: []*rtv1.TopicSubscription{topic("mem", "a", "/a")}, inputs: []string{"c0"}}).serve(t)
	_, client := startGRPC(t, a, setup{resources: buses + crons(""), env: []string{"APP_API_TOKEN=secret"}})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent, "tracestate", "k=v", "dapr-api-token", "mine")
	_, err := client.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a"})
	want{}.check(t, err)
	md := a.wait(t, "event /a", 1)[0].md
	if got := md.Get("dapr-api-token"); len(got) != 1 || got[0] != "secret" {
		t.Errorf("token %v", got)
	}
	if got := md.Get("traceparent"); len(got) != 1 || !strings.HasPrefix(got[0], parent[:35]) || got[0] == parent {
		t.Errorf("traceparent %v", got)
	}
	if got := md.Get("tracestate"); len(got) != 1 || got[0] != "k=v" {
		t.Errorf("tracestate %v", got)
	}
	if got := md.Get("grpc-trace-bin"); len(got) != 1 || len(got[0]) != 29 || hex.EncodeToString([]byte(got[0][2:18])) != parent[3:35] {
		t.Errorf("grpc-trace-bin %q", got)
	}
	for _, key := range []string{"ListTopicSubscriptions", "ListInputBindings", "binding c0"} {
		if got := a.wait(t, key, 1)[0].md.Get("dapr-api-token"); len(got) != 1 || got[0] != "secret" {
			t.Errorf("%s: token %v", key, got)
		}
	}
}

// grpcOutcomes is the contract's table for gRPC.
var grpcOutcomes = []struct {
	name   string
	status rtv1.TopicEventResponse_TopicEventResponseStatus
	code   codes.Code
	want   string
}{
	{"SUCCESS", rtv1.TopicEventResponse_SUCCESS, codes.OK, ack},
	{"RETRY", rtv1.TopicEventResponse_RETRY, codes.OK, retry},
	{"DROP", rtv1.TopicEventResponse_DROP, codes.OK, drop},
	{"unknown status", 42, codes.OK, retry},
	{"Unimplemented", 0, codes.Unimplemented, "discard"},
	{"Canceled", 0, codes.Canceled, retry},
	{"Unknown", 0, codes.Unknown, retry},
	{"InvalidArgument", 0, codes.InvalidArgument, retry},
	{"DeadlineExceeded", 0, codes.DeadlineExceeded, retry},
	{"NotFound", 0, codes.NotFound, retry},
	{"PermissionDenied", 0, codes.PermissionDenied, retry},
	{"ResourceExhausted", 0, codes.ResourceExhausted, retry},
	{"Internal", 0, codes.Internal, retry},
	{"Unavailable", 0, codes.Unavailable, retry},
	{"Unauthenticated", 0, codes.Unauthenticated, retry},
}

func TestGRPCOutcomes(t *testing.T) {
	t.Parallel()
	a := &grpcApp{topics: eachBus(topic("", "dead", "/dead"))}
	for i := range grpcOutcomes {
		letter := topic("", fmt.Sprintf("l%d", i), fmt.Sprintf("/letter/%d", i))
		letter.DeadLetterTopic = "dead"
		a.topics = append(a.topics, eachBus(topic("", fmt.Sprintf("t%d", i), fmt.Sprintf("/plain/%d", i)), letter)...)
	}
	a.event = func(_ context.Context, c grpcCall, n int) (*rtv1.TopicEventResponse, error) {
		i := 0
		path := c.event.GetPath()
		if _, err := fmt.Sscan(path[strings.LastIndex(path, "/")+1:], &i); err != nil || n > 1 {
			return said(rtv1.TopicEventResponse_SUCCESS)
		}
		if row := grpcOutcomes[i]; row.code != codes.OK {
			return nil, status.Error(row.code, "as told")
		}
		return said(grpcOutcomes[i].status)
	}
	a.serve(t)
	_, client := startGRPC(t, a, setup{resources: buses})
	both(t, func(t *testing.T, bus string) {
		letters := 0
		for i, row := range grpcOutcomes {
			emit(t, client, bus, fmt.Sprintf("t%d", i), quote(row.name))
			emit(t, client, bus, fmt.Sprintf("l%d", i), quote(row.name))
			if row.want == retry || row.want == drop {
				letters++
			}
		}
		dead := map[string]int{}
		for _, c := range a.wait(t, "event /"+bus+"/dead", letters) {
			dead[string(c.event.GetData())]++
		}
		for i, row := range grpcOutcomes { // retries take the longest
			times := 1
			if row.want == retry {
				times = 2
			}
			a.wait(t, fmt.Sprintf("event /%s/plain/%d", bus, i), times)
		}
		for i, row := range grpcOutcomes {
			plain, letter := len(a.got(fmt.Sprintf("event /%s/plain/%d", bus, i))), len(a.wait(t, fmt.Sprintf("event /%s/letter/%d", bus, i), 1))
			if want := map[bool]int{true: 2, false: 1}[row.want == retry]; plain != want || letter != 1 {
				t.Errorf("%s: delivered %d times, with a dead letter topic %d", row.name, plain, letter)
			}
			if buried := dead[quote(row.name)]; buried != map[string]int{retry: 1, drop: 1}[row.want] {
				t.Errorf("%s: %d dead letters", row.name, buried)
			}
		}
	})
}

// A bulk has an outcome for each entry; an app that knows only the older method
// gets it there.
func TestGRPCBulk(t *testing.T) {
	t.Parallel()
	for _, alpha := range []bool{false, true} {
		t.Run(fmt.Sprintf("alpha=%t", alpha), func(t *testing.T) {
			t.Parallel()
			sub := topic("", "a", "/a")
			sub.BulkSubscribe = &rtv1.BulkSubscribeConfig{Enabled: true, MaxMessagesCount: 4, MaxAwaitDurationMs: 200}
			a := (&grpcApp{topics: eachBus(sub), alpha: alpha, bulk: answerBulk}).serve(t)
			_, client := startGRPC(t, a, setup{resources: buses})
			both(t, func(t *testing.T, bus string) { checkBulk(t, a, client, bus) })
		})
	}
}

// answerBulk answers each entry with the word that its data is.
func answerBulk(c grpcCall, _ int) (*rtv1.TopicEventBulkResponse, error) {
	out := &rtv1.TopicEventBulkResponse{}
	for _, e := range c.bulk.GetEntries() {
		word := strings.ToUpper(string(e.GetCloudEvent().GetData()))
		if s, ok := rtv1.TopicEventResponse_TopicEventResponseStatus_value[word]; ok {
			out.Statuses = append(out.Statuses, &rtv1.TopicEventBulkResponseEntry{EntryId: e.GetEntryId(), Status: rtv1.TopicEventResponse_TopicEventResponseStatus(s)})
		}
	}
	return out, nil
}

func checkBulk(t *testing.T, a *grpcApp, client rtv1.DaprClient, bus string) {
	t.Helper()
	in := &rtv1.BulkPublishRequest{PubsubName: bus, Topic: "a"}
	for _, word := range []string{"success", "drop", "retry", "untold"} {
		in.Entries = append(in.Entries, &rtv1.BulkPublishRequestEntry{EntryId: word, Event: []byte(word), ContentType: "text/plain"})
	}
	_, err := client.BulkPublishEvent(t.Context(), in)
	want{}.check(t, err)
	seen := map[string]int{}
	eventually(t, "retries", func() bool {
		clear(seen)
		for _, c := range a.got("bulk /" + bus + "/a") {
			for _, e := range c.bulk.GetEntries() {
				seen[string(e.GetCloudEvent().GetData())]++
			}
		}
		return seen["retry"] > 1 && seen["untold"] > 1
	})
	if seen["success"] != 1 || seen["drop"] != 1 {
		t.Errorf("delivered %v", seen)
	}
	b := a.got("bulk /" + bus + "/a")[0].bulk
	e := b.GetEntries()[0]
	if b.GetId() == "" || b.GetType() != "com.dapr.event.sent.bulk" || b.GetTopic() != "a" || b.GetPubsubName() != bus || e.GetContentType() != ceType || e.GetEntryId() == "" {
		t.Errorf("bulk %v", b)
	}
	ce := e.GetCloudEvent()
	if ce.GetId() == "" || ce.GetSource() != "shop" || ce.GetType() != "com.dapr.event.sent" || ce.GetSpecVersion() != "1.0" || ce.GetDataContentType() != "text/plain" ||
		ce.GetExtensions().AsMap()["topic"] != "a" {
		t.Errorf("entry %v", ce)
	}
}

// A bulk of raw payloads carries the bytes as they came.
func TestGRPCRawBulk(t *testing.T) {
	t.Parallel()
	sub := topic("mem", "a", "/a")
	sub.BulkSubscribe = &rtv1.BulkSubscribeConfig{Enabled: true, MaxMessagesCount: 2, MaxAwaitDurationMs: 50}
	sub.Metadata = map[string]string{"rawPayload": "true"}
	a := (&grpcApp{topics: []*rtv1.TopicSubscription{sub}, bulk: func(c grpcCall, _ int) (*rtv1.TopicEventBulkResponse, error) {
		out := &rtv1.TopicEventBulkResponse{}
		for _, e := range c.bulk.GetEntries() {
			out.Statuses = append(out.Statuses, &rtv1.TopicEventBulkResponseEntry{EntryId: e.GetEntryId()})
		}
		return out, nil
	}}).serve(t)
	_, client := startGRPC(t, a, setup{resources: buses})
	_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Data: []byte("\xffraw"), Metadata: map[string]string{"rawPayload": "true", "tenant": "t1"}})
	want{}.check(t, err)
	e := a.wait(t, "bulk /a", 1)[0].bulk.GetEntries()[0]
	if string(e.GetBytes()) != "\xffraw" || e.GetContentType() != "application/octet-stream" || e.GetMetadata()["tenant"] != "t1" {
		t.Errorf("entry %v", e)
	}
}

// An app without any method for bulks gets its events one by one.
func TestGRPCNoBulk(t *testing.T) {
	t.Parallel()
	sub := topic("mem", "a", "/a")
	sub.BulkSubscribe = &rtv1.BulkSubscribeConfig{Enabled: true, MaxMessagesCount: 1}
	a := (&grpcApp{topics: []*rtv1.TopicSubscription{sub}}).serve(t)
	_, client := startGRPC(t, a, setup{resources: buses})
	emit(t, client, "mem", "a", `1`)
	a.wait(t, "event /a", 1)
	emit(t, client, "mem", "a", `2`)
	if got := a.wait(t, "event /a", 2)[1]; string(got.event.GetData()) != `2` {
		t.Errorf("got %v", got.event)
	}
}

// With RETRY and with an error, the app may say how long to wait.
func TestGRPCRetryAfter(t *testing.T) {
	t.Parallel()
	a := &grpcApp{topics: []*rtv1.TopicSubscription{topic("mem", "a", "/a"), topic("mem", "b", "/b")}}
	a.event = func(ctx context.Context, c grpcCall, n int) (*rtv1.TopicEventResponse, error) {
		if n > 1 {
			return said(rtv1.TopicEventResponse_SUCCESS)
		}
		setTrailer(ctx, "retry-after", "1")
		if c.event.GetPath() == "/a" {
			return nil, status.Error(codes.Unavailable, "not now")
		}
		return said(rtv1.TopicEventResponse_RETRY)
	}
	a.serve(t)
	_, client := startGRPC(t, a, setup{resources: buses})
	emit(t, client, "mem", "a", `1`)
	emit(t, client, "mem", "b", `1`)
	for _, path := range []string{"/a", "/b"} {
		c := a.wait(t, "event "+path, 2)
		if pause := c[1].at.Sub(c[0].at); pause < 900*time.Millisecond {
			t.Errorf("%s again after %s", path, pause)
		}
	}
}
