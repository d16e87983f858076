package pubsub_test

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// shelf is a broker that keeps what was published, per topic.
type shelf struct {
	features pubsub.Features
	refuse   string // bodies that contain this are not taken

	mu     sync.Mutex
	topics map[string][]pubsub.Message
	// settled has topic and verdict of what a source settled by itself.
	settled []string
}

func (s *shelf) Publish(_ context.Context, topic string, batch []pubsub.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := &pubsub.BatchError{Errs: make([]error, len(batch))}
	bad := false
	for i, m := range batch {
		if s.refuse != "" && strings.Contains(string(m.Data), s.refuse) {
			failed.Errs[i], bad = fault.New(fault.Exhausted, "store message: full"), true
			continue
		}
		s.topics[topic] = append(s.topics[topic], m)
	}
	if bad {
		return failed
	}
	return nil
}

func (s *shelf) Subscribe(ctx context.Context, sub pubsub.Subscription, emit cloudevents.EmitFunc) error {
	s.mu.Lock()
	var held []*cloudevents.Delivery
	for _, topic := range slices.Sorted(maps.Keys(s.topics)) {
		if !pubsub.Matches(sub.Topic, topic) {
			continue
		}
		for _, m := range s.topics[topic] {
			held = append(held, &cloudevents.Delivery{
				Body: m.Data, Metadata: m.Metadata, Topic: topic, Attempt: 1,
				Settle: func(o cloudevents.Outcome) { s.settle(topic, o) },
			})
		}
	}
	s.mu.Unlock()
	for _, d := range held {
		if err := emit(ctx, d); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

func (s *shelf) settle(topic string, o cloudevents.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = append(s.settled, topic+" "+o.Verdict.String())
}

func (s *shelf) Close(context.Context) error { return nil }

func (s *shelf) Features() pubsub.Features { return s.features }

type noOptions struct{}

// open makes a running bus around a shelf.
func open(t *testing.T, s *shelf, items ...config.Item) *pubsub.Bus {
	t.Helper()
	return openIn(t, "", s, items...)
}

// openIn is open in a namespace.
func openIn(t *testing.T, namespace string, s *shelf, items ...config.Item) *pubsub.Bus {
	t.Helper()
	return openWith(t, component.Env{AppID: "shop", Namespace: namespace}, s, items...)
}

// openWith is open with what the runtime hands down.
func openWith(t testing.TB, env component.Env, s *shelf, items ...config.Item) *pubsub.Bus {
	t.Helper()
	s.topics = map[string][]pubsub.Message{}
	env.Name = "bus"
	def := pubsub.Define("shelf", component.About{}, func(context.Context, component.Env, noOptions) (pubsub.Driver, error) { return s, nil })
	b, err := pubsub.New(def, env, config.Component{Name: "bus", Type: "pubsub.shelf", Metadata: items})
	if err != nil {
		t.Fatal(err)
	}
	b.Instance().Run(t.Context())
	t.Cleanup(func() { b.Instance().Close(context.WithoutCancel(t.Context())) })
	return b
}

func TestPublishWrapsTheData(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	b := open(t, s)
	err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "orders", Data: []byte(`{"id": 1.50}`), ContentType: "application/json"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := cloudevents.Scan(s.topics["orders"][0].Data)
	if err != nil {
		t.Fatal(err)
	}
	topic, _ := e.Attr("topic")
	bus, _ := e.Attr("pubsubname")
	got := []string{e.Source(), e.Type(), topic, bus, string(e.Data())}
	want := []string{"shop", "com.dapr.event.sent", "orders", "bus", `{"id": 1.50}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("envelope differs (-want +got):\n%s", diff)
	}
}

// TestPublishOfAnEvent publishes what was read already as its JSON would be.
func TestPublishOfAnEvent(t *testing.T) {
	t.Parallel()
	text := `{"specversion":"1.0","id":"7","source":"/s","type":"t","time":"x","traceparent":"` + cloudevents.NewTraceParent() + `","data":{"id": 1.50}}`
	e, err := cloudevents.Scan([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, metadata := range []map[string]string{nil, {"rawPayload": "true"}, {"ttlInSeconds": "60", "cloudevent.subject": "s"}} {
		s := &shelf{}
		b := open(t, s)
		for _, r := range []pubsub.PublishRequest{
			{Topic: "orders", Data: []byte(text), ContentType: cloudevents.ContentType, Metadata: metadata},
			{Topic: "orders", Event: e, Metadata: metadata},
		} {
			if err := b.Publish(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
		}
		m := s.topics["orders"]
		expiration := regexp.MustCompile(`"expiration":"[^"]*"`)
		for i := range m {
			m[i].Data = expiration.ReplaceAll(m[i].Data, []byte(`"expiration":"SOON"`))
		}
		if len(m) != 2 || !cmp.Equal(m[0], m[1]) {
			t.Errorf("with %v: published %s", metadata, cmp.Diff(m[0], m[1]))
		}
	}
}

func TestPublishMetadata(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	rows := []struct {
		name     string
		features pubsub.Features
		metadata map[string]string
		check    func(m pubsub.Message) string
	}{
		{"raw payload is not wrapped", pubsub.Features{}, map[string]string{"rawPayload": "true"}, func(m pubsub.Message) string {
			return either(string(m.Data) == "hello", "wrapped: "+string(m.Data))
		}},
		{"the broker keeps the time to live", pubsub.Features{TTL: true}, map[string]string{"ttlInSeconds": "60"}, func(m pubsub.Message) string {
			return either(time.Until(m.Expires) > 50*time.Second && !strings.Contains(string(m.Data), "expiration"), "no expiry")
		}},
		{"the envelope keeps the time to live", pubsub.Features{}, map[string]string{"ttlInSeconds": "60"}, func(m pubsub.Message) string {
			return either(m.Expires.IsZero() && strings.Contains(string(m.Data), `"expiration"`), string(m.Data))
		}},
		{"a delay", pubsub.Features{Delay: true}, map[string]string{"delay": "30s"}, func(m pubsub.Message) string {
			return either(time.Until(m.DeliverAt) > 20*time.Second, "not delayed")
		}},
		{"a time of delivery", pubsub.Features{Delay: true}, map[string]string{"deliverAt": soon.Format(time.RFC3339)}, func(m pubsub.Message) string {
			return either(m.DeliverAt.Equal(soon), m.DeliverAt.String())
		}},
		{"a trace of its own", pubsub.Features{}, nil, func(m pubsub.Message) string {
			e, err := cloudevents.Scan(m.Data)
			if err != nil {
				return err.Error()
			}
			parent, _ := e.Attr("traceparent")
			id, _ := e.Attr("traceid")
			return either(cloudevents.ValidTraceParent(parent) && id == parent, parent+" and "+id)
		}},
		{"an ordering key", pubsub.Features{}, map[string]string{"partitionKey": "k1"}, func(m pubsub.Message) string {
			return either(m.Key == "k1", "key "+m.Key)
		}},
		{"an ordering key by its other name", pubsub.Features{}, map[string]string{"orderingKey": "k1"}, func(m pubsub.Message) string {
			return either(m.Key == "k1", "key "+m.Key)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := &shelf{features: row.features}
			b := open(t, s)
			if err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "t", Data: []byte("hello"), Metadata: row.metadata}); err != nil {
				t.Fatal(err)
			}
			if wrong := row.check(s.topics["t"][0]); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

func either(ok bool, wrong string) string {
	if ok {
		return ""
	}
	return wrong
}

func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		items    []config.Item
		topic    string
		metadata map[string]string
		kind     fault.Kind
	}{
		{"an empty topic", nil, "", nil, fault.NotFound},
		{"a topic outside allowedTopics", []config.Item{{Name: "allowedTopics", Value: "a,b"}}, "c", nil, fault.Denied},
		{"a protected topic", []config.Item{{Name: "protectedTopics", Value: "c"}}, "c", nil, fault.Denied},
		{"a topic outside the scope", []config.Item{{Name: "publishingScopes", Value: "shop=a;other=c"}}, "c", nil, fault.Denied},
		{"every topic when the scope is empty", []config.Item{{Name: "publishingScopes", Value: "shop="}}, "c", nil, fault.Denied},
		{"a negative time to live", nil, "t", map[string]string{"ttlInSeconds": "-1"}, fault.Invalid},
		{"a delay the broker cannot keep", nil, "t", map[string]string{"delay": "1m"}, fault.Invalid},
		{"a delay that is none", nil, "t", map[string]string{"delay": "soon"}, fault.Invalid},
		{"a time that is none", nil, "t", map[string]string{"deliverAt": "tomorrow"}, fault.Invalid},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := &shelf{}
			b := open(t, s, row.items...)
			err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: row.topic, Data: []byte("x"), Metadata: row.metadata})
			if err == nil || fault.KindOf(err) != row.kind {
				t.Errorf("error %v has kind %v, want %v", err, fault.KindOf(err), row.kind)
			}
			if len(s.topics) != 0 {
				t.Errorf("something was published: %v", s.topics)
			}
		})
	}
}

func TestScopesAllow(t *testing.T) {
	t.Parallel()
	b := open(t, &shelf{}, config.Item{Name: "protectedTopics", Value: "p"}, config.Item{Name: "publishingScopes", Value: "shop=p,q; other=r"})
	for _, topic := range []string{"p", "q"} {
		if err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: topic}); err != nil {
			t.Errorf("publish to %s: %v", topic, err)
		}
	}
}

func TestBulkPublishSaysWhichFailed(t *testing.T) {
	t.Parallel()
	s := &shelf{refuse: "unwanted"} // no hexadecimal, which ids are
	b := open(t, s)
	errs, err := b.BulkPublish(t.Context(), "t", []pubsub.PublishRequest{
		{Data: []byte("good")},
		{Data: []byte("unwanted")},
		{Data: []byte("late"), Metadata: map[string]string{"ttlInSeconds": "0"}},
		{Data: []byte("fine")},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]bool, len(errs))
	for i, e := range errs {
		got[i] = e == nil
	}
	if diff := cmp.Diff([]bool{true, false, false, true}, got); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if fault.KindOf(errs[1]) != fault.Exhausted || fault.KindOf(errs[2]) != fault.Invalid {
		t.Errorf("kinds %v, %v", fault.KindOf(errs[1]), fault.KindOf(errs[2]))
	}
}

var errEnough = errors.New("enough")

func first(t *testing.T, src *pubsub.Source) *cloudevents.Delivery {
	t.Helper()
	var got *cloudevents.Delivery
	err := src.Run(t.Context(), func(_ context.Context, d *cloudevents.Delivery) error {
		got = d
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	return got
}
