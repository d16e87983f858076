//go:build services

package interop

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/components-contrib/pubsub/jetstream"
	"github.com/dapr/components-contrib/pubsub/kafka"
	"github.com/dapr/components-contrib/pubsub/rabbitmq"
	"github.com/dapr/components-contrib/pubsub/redis"
	"github.com/dapr/kit/logger"
)

var update = flag.Bool("update", false, "write what is on the servers into testdata")

// Another process's clock and names are not in the files of testdata.
const (
	topicName = "orders"
	when      = "2026-01-02T03:04:05Z"
	trace     = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	orderJSON = `{"orderId":17,"total":12345678901234567890,"note":"größer < & >"}`
	patience  = time.Minute
)

// broker is one server, and how both programs are told of it.
type broker struct {
	name  string // of the server
	typ   string // of the component
	stock func(logger.Logger) pubsub.PubSub
	// options are those of the component in both programs.
	options func(addr, unique string) map[string]string
	// look begins to look at a topic and returns what waits for the first message.
	look func(t *testing.T, addr, topic string) func(context.Context) (layout, error)
}

// layout is a message as it is on a server.
type layout struct {
	Writer string            `json:"writer"`
	Fields map[string]string `json:"fields"` // all but the body
	Body   string            `json:"body"`
}

func brokers() []broker {
	return []broker{
		{"redis", "pubsub.redis", redis.NewRedisStreams, func(addr, unique string) map[string]string {
			return map[string]string{"redisHost": addr, "consumerID": unique}
		}, lookRedis},
		{"rabbitmq", "pubsub.rabbitmq", rabbitmq.NewRabbitMQ, func(addr, unique string) map[string]string {
			return map[string]string{"connectionString": addr, "consumerID": unique, "durable": "true", "deletedWhenUnused": "false", "publisherConfirm": "true"}
		}, lookRabbitMQ},
		{"kafka", "pubsub.kafka", kafka.NewKafka, func(addr, unique string) map[string]string {
			return map[string]string{
				"brokers": addr, "authType": "none", "consumerGroup": unique, "clientID": unique, "initialOffset": "oldest", "version": "2.8.0",
			}
		}, lookKafka},
		{"nats", "pubsub.jetstream", jetstream.NewJetStream, func(addr, unique string) map[string]string {
			return map[string]string{"natsURL": addr, "durableName": unique, "queueGroupName": unique}
		}, lookJetStream},
	}
}

// each runs a test for every server, each with a topic of its own.
func each(t *testing.T, run func(t *testing.T, b broker, addr, topic string)) {
	for _, b := range brokers() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			variable := "PENSTOCK_TEST_" + strings.ToUpper(b.name)
			addr := os.Getenv(variable)
			if addr == "" {
				t.Fatalf("%s is not set: run this through make test-services", variable)
			}
			run(t, b, addr, fmt.Sprintf("interop%08x", rand.Uint32()))
		})
	}
}

// started makes Dapr's component.
func started(t *testing.T, b broker, addr, topic string) pubsub.PubSub {
	t.Helper()
	log := logger.NewLogger("interop-" + topic)
	log.SetOutputLevel(logger.FatalLevel)
	c := b.stock(log)
	err := c.Init(t.Context(), pubsub.Metadata{Base: metadata.Base{Name: "bus", Properties: b.options(addr, topic+"-dapr")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestDaprWritesPenstockReads publishes an event as Dapr's runtime does.
func TestDaprWritesPenstockReads(t *testing.T) {
	inUse(t)
	each(t, func(t *testing.T, b broker, addr, topic string) {
		seen := b.look(t, addr, topic)
		c := started(t, b, addr, topic)
		p := serve(t, b, addr, topic, topic)
		envelope := pubsub.NewCloudEventsEnvelope("event-1", "shop", "com.example.order", "", topic, "bus", "application/json", []byte(orderJSON), trace, "")
		envelope["time"] = when
		data, err := json.Marshal(envelope)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Publish(t.Context(), &pubsub.PublishRequest{
			Data: data, PubsubName: "bus", Topic: topic, Metadata: map[string]string{"partitionKey": "customer-7"},
		})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, b, "dapr", "components-contrib v1.18.0", topic, seen)
		same(t, p.next(t), string(data))
	})
}

// TestPenstockWritesDaprReads publishes through Penstock's API.
func TestPenstockWritesDaprReads(t *testing.T) {
	inUse(t)
	each(t, func(t *testing.T, b broker, addr, topic string) {
		seen := b.look(t, addr, topic)
		c := started(t, b, addr, topic)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		got := make(chan string, 100)
		err := c.Subscribe(ctx, pubsub.SubscribeRequest{Topic: topic}, func(_ context.Context, m *pubsub.NewMessage) error {
			got <- string(m.Data)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		p := serve(t, b, addr, topic, "")
		event := fmt.Sprintf(`{"specversion":"1.0","id":"event-2","source":"shop","type":"com.example.order","time":%q,`+
			`"datacontenttype":"application/json","topic":%q,"pubsubname":"bus","traceparent":%q,"data":%s}`, when, topic, trace, orderJSON)
		p.publish(t, topic, event)
		golden(t, b, "penstock", "penstock", topic, seen)
		select {
		case data := <-got:
			same(t, data, event)
		case <-time.After(patience):
			t.Fatal("Dapr's component did not get the event")
		}
	})
}

// same holds what arrived against what was sent. A span of the way may be in
// traceparent, but the trace is the same.
func same(t *testing.T, got, want string) {
	t.Helper()
	g, w := attributes(t, got), attributes(t, want)
	for _, name := range []string{"id", "source", "type", "specversion", "time", "datacontenttype", "topic", "pubsubname", "data"} {
		if !reflect.DeepEqual(g[name], w[name]) {
			t.Errorf("%s is %v, want %v", name, g[name], w[name])
		}
	}
	if trace, _ := g["traceparent"].(string); !strings.HasPrefix(trace, w["traceparent"].(string)[:36]) {
		t.Errorf("traceparent is %q, want the trace of %q", trace, w["traceparent"])
	}
}

func attributes(t *testing.T, event string) (all map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(event))
	d.UseNumber() // as they are
	if err := d.Decode(&all); err != nil {
		t.Fatalf("%s: %v", event, err)
	}
	return all
}

// spans finds what tracing makes anew.
var spans = regexp.MustCompile(`00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-0[01]`)

// golden compares what is on the server with the file of testdata.
func golden(t *testing.T, b broker, who, writer, topic string, seen func(context.Context) (layout, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := seen(ctx)
	if err != nil {
		t.Fatalf("look at the message: %v", err)
	}
	l.Writer = writer
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(text)+"\n", topic, topicName)
	got = spans.ReplaceAllString(got, trace)
	file := filepath.Join("testdata", b.name+"-"+who+".json")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("on the server is\n%s\nwant\n%s\n(-update writes it anew)", got, want)
	}
}

// inUse tells the report of make test-services which servers a test uses.
func inUse(t *testing.T) {
	t.Helper()
	for _, b := range brokers() {
		t.Logf("server in use: %s", b.name)
	}
}
