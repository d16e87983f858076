package mqtt

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"testing"
	"time"

	v3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/mqttserver"
)

func TestMain(m *testing.M) { os.Exit(mqttserver.Main(m)) }

// connected is a client of the server that knows nothing of Penstock.
func connected(t *testing.T, at string) v3.Client {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	c := v3.NewClient(v3.NewClientOptions().AddBroker("tcp://" + u.Host).SetClientID(conform.Unique(t)))
	if k := c.Connect(); k.Wait() && k.Error() != nil {
		t.Fatal(k.Error())
	}
	t.Cleanup(func() { c.Disconnect(500) })
	return c
}

func openedAt(t *testing.T, options map[string]string) *binding {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	env := component.Env{AppID: "app", Name: "conform", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*binding)
}

func shut(t *testing.T, b *binding) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

// suite runs what every binding promises on a server.
func suite(t *testing.T, at string) {
	t.Helper()
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			t.Helper()
			o := map[string]string{"url": at, "topic": conform.Unique(t)}
			b := openedAt(t, o) // for the session, which keeps what is fed before the first Read
			if err := b.client.Prepare(t.Context(), b.feed()); err != nil {
				t.Fatal(err)
			}
			shut(t, b)
			return o
		},
		Wrong: map[string]map[string]string{
			"url":         {"url": "http://x"},
			"clientCert":  {"clientCert": "x"},
			"qos":         {"qos": "3"},
			"topic":       {"topic": "a/#/b"},
			"maxInFlight": {"maxInFlight": "-1"},
			"leaseTopic":  {"leaseTopic": "+"},
		},
		Feed: func(t *testing.T, options map[string]string, bodies ...string) {
			t.Helper()
			c := connected(t, at)
			for _, body := range bodies {
				if k := c.Publish(options["topic"], 1, false, body); k.Wait() && k.Error() != nil {
					t.Fatal(k.Error())
				}
			}
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"a": "b"}}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			t.Helper()
			topic, got := conform.Unique(t), make(chan []byte, 1)
			c := connected(t, at)
			c.Subscribe(topic, 1, func(_ v3.Client, m v3.Message) { got <- m.Payload() }).Wait()
			_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"topic": topic}})
			if err != nil {
				return nil, err
			}
			return <-got, nil
		},
		Fails: []conform.BindingFailure{{
			Name: "topic", Kind: fault.Invalid,
			Request: bindings.Request{Operation: "create", Metadata: map[string]string{"topic": "a/+"}},
		}, {
			Name: "retain", Kind: fault.Invalid,
			Request: bindings.Request{Operation: "create", Metadata: map[string]string{"retain": "maybe"}},
		}},
	})
}

func TestSuite(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, mqttserver.Start(t, mqttserver.Options{}).URL())
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	s := mqttserver.Start(t, mqttserver.Options{})
	b := openedAt(t, map[string]string{"url": s.URL(), "topic": "sensors/+/temperature"})
	defer shut(t, b)
	if err := b.client.Prepare(t.Context(), b.feed()); err != nil {
		t.Fatal(err)
	}
	request := bindings.Request{Operation: "create", Data: []byte("21.5"), Metadata: map[string]string{"topic": "sensors/a/temperature"}}
	if _, err := b.Invoke(t.Context(), &request); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := b.Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
		if d.Event.Subject() != "sensors/a/temperature" || d.Metadata["topic"] != "sensors/a/temperature" || d.Metadata["retained"] != "false" || string(d.Body) != "21.5" {
			t.Errorf("event %s with %v", d.Event.JSON(), d.Metadata)
		}
		d.Settle(cloudevents.Acked())
		cancel()
		return nil
	})
	if err != nil || ctx.Err() != context.Canceled {
		t.Errorf("read: %v", err)
	}
	if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "create"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("publish to a topic with a wildcard: %v, want invalid", err)
	}
}
