package kafka

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// layout is one message as Dapr's component keeps it.
type layout struct {
	Name    string
	Publish struct {
		Data, ContentType string
		Metadata          map[string]string
	}
	Record  record
	Event   map[string]string // what is read out of it; none: it is no event
	Escaped map[string]string // metadata with escapeHeaders
}

type record struct {
	Key       *string
	Value     string
	Partition *int32
	Headers   map[string]string
}

// TestLayouts has Dapr's component on the other side of the broker, as captures
// of what it writes and reads: request metadata are headers, partitionKey or
// __key is the key, partitionNumber chooses the partition, and a reader gets the
// headers and five names beside them.
func TestLayouts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/layouts.json")
	if err != nil {
		t.Fatal(err)
	}
	brokers := fake(t)
	var names []layout
	if err := json.Unmarshal(text, &names); err != nil {
		t.Fatal(err)
	}
	for i := range names {
		for name, run := range map[string]func(*layout, *testing.T, string, string){"written": (*layout).written, "read": (*layout).read} {
			t.Run(names[i].Name+"/"+name, func(t *testing.T) {
				topic := conform.Unique(t)
				var all []layout
				if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), "TOPIC", topic)), &all); err != nil {
					t.Fatal(err)
				}
				run(&all[i], t, brokers, topic)
			})
		}
	}
}

// written publishes the message and reads the record.
func (l *layout) written(t *testing.T, brokers, topic string) {
	bus := running(t, brokers)
	err := bus.Publish(t.Context(), &pubsub.PublishRequest{
		Topic: topic, Data: []byte(l.Publish.Data), ContentType: l.Publish.ContentType, Metadata: l.Publish.Metadata,
		TraceParent: parent,
	})
	if err != nil {
		t.Fatal(err)
	}
	k, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(t.Context(), while)
	defer cancel()
	fetches := k.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	r := fetches.Records()[0]
	got := record{Value: string(r.Value), Headers: map[string]string{}}
	if r.Key != nil {
		got.Key = new(string(r.Key))
	}
	if l.Record.Partition != nil {
		got.Partition = new(r.Partition)
	}
	for _, h := range r.Headers {
		got.Headers[h.Key] = string(h.Value)
	}
	if l.Event != nil { // the order of attributes says nothing
		got.Value, l.Record.Value = sorted(t, got.Value), sorted(t, l.Record.Value)
	}
	// Dapr says the trace in the envelope alone; other programs look beside it.
	want := l.Record
	want.Headers = map[string]string{"traceparent": parent}
	maps.Copy(want.Headers, l.Record.Headers)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// parent is the trace that events are published in.
const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// sorted is an envelope in one form, without the time, which differs.
func sorted(t *testing.T, envelope string) string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(envelope), &all); err != nil {
		t.Fatal(err)
	}
	delete(all, "time")
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// running is a bus that is open until the test ends.
func running(t *testing.T, brokers string) *pubsub.Bus {
	t.Helper()
	env := component.Env{AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	bus, err := pubsub.New(Component, env, config.Component{
		Name: "bus", Type: "pubsub.kafka", Metadata: []config.Item{{Name: "brokers", Value: brokers}, {Name: "authType", Value: "none"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), while)
		defer cancel()
		if err := bus.Instance().Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return bus
}

// read writes the record as another client does and takes the delivery.
func (l *layout) read(t *testing.T, brokers, topic string) {
	d := opened(t, brokers, map[string]string{"escapeHeaders": strconv.FormatBool(l.Escaped != nil)})
	defer shut(t, d)
	prepare(t, d, topic)
	k, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	r := &kgo.Record{Topic: topic, Value: []byte(l.Record.Value)}
	want := map[string]string{"__topic": topic}
	if l.Record.Key != nil {
		r.Key, want["__key"] = []byte(*l.Record.Key), *l.Record.Key
	}
	if l.Record.Partition != nil {
		r.Partition = *l.Record.Partition
	}
	for name, value := range l.Record.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		want[name] = value
	}
	if err := k.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	want["__partition"], want["__offset"] = strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10)
	want["__timestamp"] = strconv.FormatInt(r.Timestamp.UnixMilli(), 10)
	maps.Copy(want, l.Escaped)

	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	x := m.want(t, l.Record.Value)
	if d := cmp.Diff(want, x.Metadata); d != "" {
		t.Error(d)
	}
	if l.Event != nil {
		e, err := pubsub.EventOf("bus", topic, x.Body, x.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for name := range l.Event {
			got[name], _ = e.Attr(name)
		}
		got["data"] = string(e.Data())
		if d := cmp.Diff(l.Event, got); d != "" {
			t.Error(d)
		}
	}
	x.Settle(cloudevents.Acked())
	m.end(t)
}
