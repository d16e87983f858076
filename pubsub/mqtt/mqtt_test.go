package mqtt

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/mqttserver"
)

func TestMain(m *testing.M) { os.Exit(mqttserver.Main(m)) }

// opened opens a component on a server.
func opened(t testing.TB, def component.Definition, url string, more ...string) *driver {
	t.Helper()
	d, err := tried(t, def, url, more...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tried(t testing.TB, def component.Definition, url string, more ...string) (*driver, error) {
	t.Helper()
	items := []config.Item{{Name: "url", Value: url}}
	for i := 0; i+1 < len(more); i += 2 {
		items = append(items, config.Item{Name: more[i], Value: more[i+1]})
	}
	env := component.Env{AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	d, err := def.Open(t.Context(), env, items)
	if err != nil {
		return nil, err
	}
	return d.(*driver), nil
}

func closed(t testing.TB, d pubsub.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// suite runs what every broker promises.
func suite(t *testing.T, def component.Definition, url string) {
	t.Helper()
	// The server here loses count of what it may send once the window was full.
	window := []string{"maxInFlight", "20000"}
	prefix := ""
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		t.Helper()
		prefix = conform.Unique(t) + "/"
		return conform.Apart(opened(t, def, url, window...), prefix)
	}, conform.PubSubSetup{
		Unordered: true, NoMetadata: def.Type == Component3.Type, ForgetsDelay: true, Patience: 30 * time.Second,
		Reopen: func(t *testing.T, _ pubsub.Driver) pubsub.Driver {
			t.Helper()
			return conform.Apart(opened(t, def, url, window...), prefix)
		},
	})
}

func TestConform3(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, Component3, mqttserver.Start(t, mqttserver.Options{}).URL())
}

func TestConform5(t *testing.T) {
	suite(t, Component5, mqttserver.Start(t, mqttserver.Options{}).URL())
}

// enveloped puts metadata into the body, for the version that has no other place
// for it and a suite that wants it back.
type enveloped struct{ *driver }

type envelope struct {
	Metadata map[string]string
	Body     []byte
}

func (e enveloped) Publish(ctx context.Context, topic string, ms []pubsub.Message) error {
	list := make([]pubsub.Message, len(ms))
	for i, m := range ms {
		body, err := json.Marshal(envelope{m.Metadata, m.Data})
		if err != nil {
			return err
		}
		list[i] = pubsub.Message{Data: body}
	}
	return e.driver.Publish(ctx, topic, list)
}

func (e enveloped) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	return e.driver.Subscribe(ctx, s, func(ctx context.Context, d *cloudevents.Delivery) error {
		var x envelope
		if err := json.Unmarshal(d.Body, &x); err != nil {
			return err
		}
		d.Body, d.Metadata = x.Body, x.Metadata
		return emit(ctx, d)
	})
}

func watermill(t *testing.T, def component.Definition, url string) {
	t.Helper()
	conform.Watermill(t, func(t *testing.T) pubsub.Driver {
		t.Helper()
		d := opened(t, def, url, "maxInFlight", "20000")
		if def.Type == Component3.Type {
			return conform.Apart(enveloped{d}, conform.Unique(t)+"/")
		}
		return conform.Apart(d, conform.Unique(t)+"/")
	})
}

func TestWatermillSuite3(t *testing.T) {
	watermill(t, Component3, mqttserver.Start(t, mqttserver.Options{}).URL())
}

func TestWatermillSuite5(t *testing.T) {
	watermill(t, Component5, mqttserver.Start(t, mqttserver.Options{}).URL())
}

func components() []component.Definition { return []component.Definition{Component3, Component5} }
