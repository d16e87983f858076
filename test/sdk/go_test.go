package sdk

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dapr/go-sdk/service/common"
)

const busYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: BUS, version: v1, metadata: []}
`

// buses runs a test on each pub/sub of the build.
func buses(t *testing.T, test func(t *testing.T, bus string)) {
	for _, typ := range []string{"pubsub.in-memory", "pubsub.sqlite"} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			yaml := strings.Replace(busYAML, "BUS", typ, 1)
			if typ == "pubsub.sqlite" {
				file := filepath.Join(t.TempDir(), "bus.db")
				yaml = strings.Replace(yaml, "metadata: []", `metadata: [{name: connectionString, value: "`+file+`"}]`, 1)
			}
			test(t, yaml)
		})
	}
}

func publish(t *testing.T, api, topic, data string) {
	t.Helper()
	if status, body := post(t, api+"/publish/bus/"+topic, "application/json", data); status != http.StatusNoContent {
		t.Fatalf("publish: %d %s", status, body)
	}
}

func TestProgrammaticSubscriptionWithRoutes(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		large, small := make(chan common.TopicEvent, 8), make(chan common.TopicEvent, 8)
		to := func(c chan common.TopicEvent) common.TopicEventHandler {
			return func(_ context.Context, e *common.TopicEvent) (bool, error) { c <- *e; return false, nil }
		}
		port := app(t, func(s common.Service) error {
			return errors.Join(
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "orders", Route: "/large", Match: `event.data.total > 100`, Priority: 1}, to(large)),
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "orders", Route: "/small"}, to(small)),
			)
		})
		api := sidecar(t, port, bus)
		publish(t, api, "orders", `{"id":"A1","total":250}`)
		publish(t, api, "orders", `{"id":"A2","total":3}`)
		e := receive(t, large, "the large order")
		if string(e.RawData) != `{"id":"A1","total":250}` || e.Topic != "orders" || e.PubsubName != "bus" || e.Source != "shop" || e.Type != "com.dapr.event.sent" || e.SpecVersion != "1.0" || e.ID == "" {
			t.Errorf("large order is %+v, data %s", e, e.RawData)
		}
		if e := receive(t, small, "the small order"); string(e.RawData) != `{"id":"A2","total":3}` {
			t.Errorf("small order is %+v", e)
		}
	})
}

func TestRetryDropAndDeadLetter(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		var tries atomic.Int32
		done, dead := make(chan int32, 8), make(chan common.TopicEvent, 8)
		port := app(t, func(s common.Service) error {
			return errors.Join(
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "again", Route: "/again"}, func(context.Context, *common.TopicEvent) (bool, error) {
					if n := tries.Add(1); n < 3 {
						return true, errors.New("busy")
					}
					done <- tries.Load()
					return false, nil
				}),
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "bad", Route: "/bad", DeadLetterTopic: "graves"}, func(context.Context, *common.TopicEvent) (bool, error) {
					return false, errors.New("never") // the SDK answers DROP
				}),
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "graves", Route: "/graves", DisableTopicValidation: true}, func(_ context.Context, e *common.TopicEvent) (bool, error) {
					dead <- *e
					return false, nil
				}),
			)
		})
		api := sidecar(t, port, bus)
		publish(t, api, "again", `{"n":1}`)
		if n := receive(t, done, "the third try"); n != 3 {
			t.Errorf("delivered %d times, want 3", n)
		}
		publish(t, api, "bad", `{"n":2}`)
		if e := receive(t, dead, "the dead letter"); string(e.RawData) != `{"n":2}` {
			t.Errorf("dead letter holds %s", e.RawData)
		}
	})
}

func TestDeclarativeSubscription(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		got := make(chan common.TopicEvent, 8)
		port := app(t, func(s common.Service) error {
			// Only the handler is the app's; the subscription is YAML.
			return s.AddServiceInvocationHandler("/declared", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
				got <- common.TopicEvent{RawData: in.Data, DataContentType: in.ContentType}
				return nil, nil
			})
		})
		api := sidecar(t, port, bus+`---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec:
  pubsubname: bus
  topic: declared/with/slashes
  routes:
    rules: [{match: 'event.type == "never"', path: /nowhere}]
    default: /declared
`)
		publish(t, api, "declared/with/slashes", `{"n":1}`)
		e := receive(t, got, "the event")
		if !strings.Contains(string(e.RawData), `"data":{"n":1}`) || !strings.HasPrefix(e.DataContentType, "application/cloudevents+json") {
			t.Errorf("got %s as %s", e.RawData, e.DataContentType)
		}
	})
}

func TestBindings(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	ticks := make(chan *common.BindingEvent, 64)
	port := app(t, func(s common.Service) error {
		return s.AddBindingInvocationHandler("/tick", func(_ context.Context, in *common.BindingEvent) ([]byte, error) {
			ticks <- in
			return []byte(`{"to":["store"],"operation":"create","metadata":{"fileName":"reply.json"},"data":{"from":"reply"}}`), nil
		})
	})
	api := sidecar(t, port, `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "@every 1s"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: bindings.localstorage, version: v1, metadata: [{name: rootPath, value: "`+out+`"}]}
`)
	receive(t, ticks, "a tick of the cron binding")
	eventually(t, "the reply is carried out", func() bool {
		b, err := os.ReadFile(filepath.Join(out, "reply.json"))
		return err == nil && string(b) == `{"from":"reply"}`
	})
	status, body := post(t, api+"/bindings/store", "application/json", `{"operation":"create","data":{"a": 1.0},"metadata":{"fileName":"x.json"}}`)
	if status != http.StatusOK && status != http.StatusNoContent {
		t.Fatalf("output binding: %d %s", status, body)
	}
	if b, err := os.ReadFile(filepath.Join(out, "x.json")); err != nil || string(b) != `{"a": 1.0}` {
		t.Errorf("stored %q, %v", b, err)
	}
}

func TestHealthOfTheApp(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		var well atomic.Bool
		got := make(chan string, 8)
		port := app(t, func(s common.Service) error {
			return errors.Join(
				s.AddHealthCheckHandler("/healthz", func(context.Context) error {
					if !well.Load() {
						return errors.New("not yet")
					}
					return nil
				}),
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "t", Route: "/t"}, func(_ context.Context, e *common.TopicEvent) (bool, error) {
					if !well.Load() {
						t.Error("delivered to an app that is not well")
					}
					got <- string(e.RawData)
					return false, nil
				}),
			)
		})
		api := sidecar(t, port, bus, "--enable-app-health-check", "--app-health-probe-interval", "1")
		publish(t, api, "t", `1`)
		well.Store(true)
		if data := receive(t, got, "the event after the app got well"); data != "1" {
			t.Errorf("got %s", data)
		}
		resp, err := http.Get(api + "/metadata")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		doc, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(doc), `"healthCheckPath":"/healthz"`) || !strings.Contains(string(doc), `"type":"PROGRAMMATIC"`) {
			t.Errorf("metadata: %s, %v", doc, err)
		}
	})
}
