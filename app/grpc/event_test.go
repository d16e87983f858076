package grpc_test

import (
	"encoding/base64"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

func scan(t testing.TB, text string) *cloudevents.Event {
	t.Helper()
	e, err := cloudevents.Scan([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTopicEvent(t *testing.T) {
	t.Parallel()
	e := scan(t, `{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"sub\u00e4","time":"2026-01-02T03:04:05Z",
		"topic":"elsewhere","pubsubname":"bus","traceparent":"`+parent+`","count":7,"sure":true,"gone":null,
		"datacontenttype":"application/json","data":{"n": 1.50}}`)
	extensions, err := structpb.NewStruct(map[string]any{
		"subject": "subä", "time": "2026-01-02T03:04:05Z", "topic": "elsewhere", "pubsubname": "bus",
		"traceparent": parent, "count": 7, "sure": true,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &rtv1.TopicEventRequest{
		Id: "1", Source: "/s", Type: "t", SpecVersion: "1.0", DataContentType: "application/json",
		Data: []byte(`{"n": 1.50}`), Topic: "orders", PubsubName: "bus", Path: "/o", Extensions: extensions,
	}
	got := appgrpc.TopicEvent(e, "bus", "orders", "/o")
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if _, err := proto.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestTopicEventData(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, members, want string }{
		{"JSON", `"datacontenttype":"application/json","data":[1, 2]`, `[1, 2]`},
		{"a JSON string stays quoted", `"datacontenttype":"application/vnd.x+json","data":"a\n"`, `"a\n"`},
		{"no type is JSON", `"data":"a"`, `"a"`},
		{"text", `"datacontenttype":"text/plain","data":"a\n\u00e4"`, "a\nä"},
		{"a string of any other type", `"datacontenttype":"application/x-foo","data":"a"`, "a"},
		{"bytes", `"datacontenttype":"application/octet-stream","data_base64":"` + base64.StdEncoding.EncodeToString([]byte{0, 255}) + `"`, "\x00\xff"},
		{"none", `"datacontenttype":"text/plain"`, ""},
	}
	for _, r := range rows {
		e := scan(t, `{"specversion":"1.0","id":"1","source":"/s","type":"t",`+r.members+`}`)
		if got := string(appgrpc.TopicEvent(e, "", "", "").GetData()); got != r.want {
			t.Errorf("%s: data = %q, want %q", r.name, got, r.want)
		}
	}
}

func TestTopicEventLargeNumber(t *testing.T) {
	t.Parallel()
	e := scan(t, `{"specversion":"1.0","id":"1","source":"/s","type":"t","big":9007199254740993,"neg":-3}`)
	fields := appgrpc.TopicEvent(e, "", "", "").GetExtensions().GetFields()
	if got := fields["big"].GetStringValue(); got != "9007199254740993" {
		t.Errorf("big = %v, want its text", fields["big"])
	}
	if got := fields["neg"].GetNumberValue(); got != -3 {
		t.Errorf("neg = %v", fields["neg"])
	}
}

func TestTopicEventMembers(t *testing.T) {
	t.Parallel()
	e := scan(t, `{"specversion":"1.0","id":"1","source":"/s","type":"t","my_attr":1.5,"x-y":"z","Meta":{"a":[1,null,{"b":true}]},"no_thing":null,"huge":1e400,"word":"w"}`)
	want := map[string]any{
		"my_attr": 1.5, "x-y": "z", "Meta": map[string]any{"a": []any{1.0, nil, map[string]any{"b": true}}},
		"no_thing": nil, "huge": "1e400", "word": "w",
	}
	got := appgrpc.TopicEvent(e, "", "", "").GetExtensions().AsMap()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("extensions differ (-want +got):\n%s", diff)
	}
}

func TestStatusOutcome(t *testing.T) {
	t.Parallel()
	rows := []struct {
		status  rtv1.TopicEventResponse_TopicEventResponseStatus
		verdict cloudevents.Verdict
		kind    fault.Kind
		after   time.Duration
	}{
		{rtv1.TopicEventResponse_SUCCESS, cloudevents.Ack, 0, 0},
		{rtv1.TopicEventResponse_RETRY, cloudevents.Retry, fault.Unavailable, 3 * time.Second},
		{rtv1.TopicEventResponse_DROP, cloudevents.Drop, fault.Dropped, 0},
		{7, cloudevents.Retry, fault.Internal, 0},
	}
	for _, r := range rows {
		o := appgrpc.StatusOutcome("/o", r.status, 3*time.Second)
		if o.Verdict != r.verdict || o.After != r.after || r.verdict != cloudevents.Ack && (fault.KindOf(o.Err) != r.kind || o.Reason == "") {
			t.Errorf("%v: outcome = %+v", r.status, o)
		}
	}
}
