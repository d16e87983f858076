package pubsub_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

func TestSourceDecodes(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	b := open(t, s)
	raw := map[string]string{"rawPayload": "true"}
	if err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "t", Data: []byte("\xff\x00raw"), Metadata: raw}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name     string
		metadata map[string]string
		want     string
	}{{"as raw payload", raw, "\xff\x00raw"}, {"as an event", nil, ""}} {
		t.Run(row.name, func(t *testing.T) {
			src, err := b.Source(pubsub.Subscription{Topic: "t", Metadata: row.metadata})
			if err != nil {
				t.Fatal(err)
			}
			d := first(t, src)
			err = src.Decode(d)
			if row.want == "" {
				if fault.KindOf(err) != fault.Invalid || string(d.Body) != "\xff\x00raw" {
					t.Errorf("decode: %v, body %q", err, d.Body)
				}
				return
			}
			if err != nil || string(d.Event.Data()) != row.want || d.Origin != "bus/t" {
				t.Errorf("decode: %v, event %v, origin %q", err, d.Event, d.Origin)
			}
		})
	}
}

func TestSourceDecodesBinaryMode(t *testing.T) {
	t.Parallel()
	src, err := open(t, &shelf{}).Source(pubsub.Subscription{Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	metadata := map[string]string{"content-type": "application/json", "ce_specversion": "1.0", "ce_id": "1", "CE_Type": "ty", "ce_source": "so", "other": "x"}
	d := &cloudevents.Delivery{Body: []byte(`{"a":1}`), Metadata: metadata}
	if err := src.Decode(d); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"specversion": "1.0", "id": "1", "type": "ty", "source": "so", "topic": "t", "pubsubname": "bus", "datacontenttype": "application/json",
	}
	if diff := cmp.Diff(want, maps.Collect(d.Event.Attrs())); diff != "" || string(d.Event.Data()) != `{"a":1}` {
		t.Errorf("data %q, attributes (-want +got):\n%s", d.Event.Data(), diff)
	}
	if !d.Event.Structured() {
		t.Error("a dead letter would not get the message's own bytes")
	}
	metadata["ce_specversion"] = "0.3"
	if err := src.Decode(d); fault.KindOf(err) != fault.Invalid {
		t.Errorf("specversion 0.3: %v", err)
	}
}

const (
	parentOf = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	bare     = `{"specversion":"1.0","id":"1","source":"s","type":"t"}`
)

// Rows are messages as other programs write them and the events that the app
// gets; data_base64 stands for the data of a wrapped one.
func TestDecode(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		raw      bool
		body     string
		metadata map[string]string
		want     map[string]string // attributes; an empty value is one that must be missing
		data     string
	}{
		{name: "raw payload", raw: true, body: "plain", want: map[string]string{"datacontenttype": "application/octet-stream", "topic": "t", "pubsubname": "bus", "traceparent": ""}, data: "plain"},
		{name: "an event is wrapped too", raw: true, body: bare, want: map[string]string{"type": "com.dapr.event.sent"}, data: bare},
		{
			name: "raw payload with a trace beside it", raw: true, body: "x", metadata: map[string]string{"TraceParent": parentOf, "tracestate": "a=b"},
			want: map[string]string{"traceparent": parentOf, "traceid": parentOf, "tracestate": "a=b"}, data: "x",
		},
		{name: "raw payload with a traceid beside it", raw: true, body: "x", metadata: map[string]string{"traceid": parentOf}, want: map[string]string{"traceparent": parentOf}, data: "x"},
		{
			name: "event without a trace", body: bare, metadata: map[string]string{"traceparent": parentOf, "tracestate": "a=b"},
			want: map[string]string{"id": "1", "traceparent": parentOf, "traceid": parentOf, "tracestate": "a=b"},
		},
		{name: "a trace that is none", body: bare, metadata: map[string]string{"traceparent": "x"}, want: map[string]string{"traceparent": ""}},
		{
			name: "event with a trace", body: strings.Replace(bare, "}", `,"traceparent":"own"}`, 1), metadata: map[string]string{"traceparent": parentOf},
			want: map[string]string{"traceparent": "own", "traceid": ""},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			sub := pubsub.Subscription{Topic: "t"}
			if row.raw {
				sub.Metadata = map[string]string{"rawPayload": "true"}
			}
			src, err := open(t, &shelf{}).Source(sub)
			if err != nil {
				t.Fatal(err)
			}
			d := &cloudevents.Delivery{Body: []byte(row.body), Metadata: row.metadata}
			if err := src.Decode(d); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for name := range row.want {
				got[name], _ = d.Event.Attr(name)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			if string(d.Event.Data()) != row.data {
				t.Errorf("data %q, want %q", d.Event.Data(), row.data)
			}
			if !d.Event.Structured() {
				t.Error("a dead letter would not get the message's own bytes")
			}
		})
	}
}

func TestWildcard(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	b := openIn(t, "prod", s, config.Item{Name: "consumerID", Value: "g", Namespaced: true},
		config.Item{Name: "protectedTopics", Value: "orders-secret,orders-open"}, config.Item{Name: "subscriptionScopes", Value: "shop=orders*,orders-open"})
	for _, topic := range []string{"a", "orders", "orders-a", "orders-dead", "orders-open", "orders-secret"} {
		s.topics["prod"+topic] = []pubsub.Message{{Data: []byte(topic)}}
	}
	src, err := b.Source(pubsub.Subscription{Topic: "orders*", Except: "orders-dead", Metadata: map[string]string{"rawPayload": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = src.Run(t.Context(), func(_ context.Context, d *cloudevents.Delivery) error {
		if err := src.Decode(d); err != nil {
			return err
		}
		topic, _ := d.Event.Attr("topic")
		if got = append(got, topic+" from "+d.Origin); len(got) == 2 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"orders-a from bus/orders-a", "orders-open from bus/orders-open"}, got); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"prodorders-dead ack"}, s.settled); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	if _, err := b.Source(pubsub.Subscription{Topic: "*"}); fault.KindOf(err) != fault.Denied {
		t.Errorf("a wildcard outside the scope: %v", err)
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		pattern, topic string
		want           bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "ab", true},
		{"a*", "a", false},
		{"a*", "a*", true},
		{"a*", "b", false},
		{"*", "anything", true},
		{"a*c", "abc", false},
		{"a**", "a*x", true},
	} {
		if got := pubsub.Matches(row.pattern, row.topic); got != row.want {
			t.Errorf("%q, %q: %t", row.pattern, row.topic, got)
		}
	}
}

// Rows are what Dapr lets app "shop" publish and subscribe.
func TestScopes(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, allowed, protected, scopes string
		may                              string // of the topics a, b and p
	}{
		{"nothing said", "", "", "", "a b p"},
		{"only some are allowed", " a , p", "", "", "a p"},
		{"a scope for another app", "", "", "other=a", "a b p"},
		{"a scope", "", "", "shop=a", "a"},
		{"an empty scope", "", "", "other=a;shop=", ""},
		{"a scope in two entries, with spaces", "", "", " shop = a ; other=p; shop= b ", "a b"},
		{"a scope cannot allow more", "a", "", "shop=a,b", "a"},
		{"a protected topic needs a scope", "", "p", "", "a b"},
		{"a protected topic in the scope", "", "p", "shop=p", "p"},
		{"protected and outside the allowed", "a,b", "p", "shop=p,a", "a"},
		{"a protected topic of another app", "", "p", "other=p", "a b"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := open(t, &shelf{}, config.Item{Name: "allowedTopics", Value: row.allowed}, config.Item{Name: "protectedTopics", Value: row.protected},
				config.Item{Name: "publishingScopes", Value: row.scopes}, config.Item{Name: "subscriptionScopes", Value: row.scopes})
			var publish, subscribe []string
			for _, topic := range []string{"a", "b", "p"} {
				if b.Publish(t.Context(), &pubsub.PublishRequest{Topic: topic}) == nil {
					publish = append(publish, topic)
				}
				if _, err := b.Source(pubsub.Subscription{Topic: topic}); err == nil {
					subscribe = append(subscribe, topic)
				}
			}
			if got := strings.Join(publish, " "); got != row.may {
				t.Errorf("publish to %q, want %q", got, row.may)
			}
			if got := strings.Join(subscribe, " "); got != row.may {
				t.Errorf("subscribe to %q, want %q", got, row.may)
			}
		})
	}
}
