package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dapr/go-sdk/service/common"
)

func TestProgrammaticSubscriptionWithRoutes(t *testing.T) {
	t.Parallel()
	matrix(t, func(t *testing.T, w wire, bus string) {
		large, small := make(chan common.TopicEvent, 8), make(chan common.TopicEvent, 8)
		to := func(c chan common.TopicEvent) common.TopicEventHandler {
			return func(_ context.Context, e *common.TopicEvent) (bool, error) { c <- *e; return false, nil }
		}
		port := app(t, w, func(s common.Service) error {
			return errors.Join(
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "orders", Route: "/large", Match: `event.data.total > 100`, Priority: 1}, to(large)),
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "orders", Route: "/small"}, to(small)),
			)
		})
		p := sidecar(t, w, port, bus)
		p.publish("orders", `{"id":"A1","total":250}`)
		p.publish("orders", `{"id":"A2","total":3}`)
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
	matrix(t, func(t *testing.T, w wire, bus string) {
		var tries atomic.Int32
		done, dead := make(chan int32, 8), make(chan common.TopicEvent, 8)
		port := app(t, w, func(s common.Service) error {
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
		p := sidecar(t, w, port, bus)
		p.publish("again", `{"n":1}`)
		if n := receive(t, done, "the third try"); n != 3 {
			t.Errorf("delivered %d times, want 3", n)
		}
		p.publish("bad", `{"n":2}`)
		if e := receive(t, dead, "the dead letter"); string(e.RawData) != `{"n":2}` {
			t.Errorf("dead letter holds %s", e.RawData)
		}
	})
}

// TestBulkSubscriptionOfAnAppWithoutBulk has the SDK over gRPC, which answers
// that it does not implement bulk.
func TestBulkSubscriptionOfAnAppWithoutBulk(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		const events = 25
		got := make(chan string, 2*events)
		port := app(t, overGRPC, func(s common.Service) error {
			// It takes other topics as well; a subscription of its own to this one would be without bulk.
			sub := &common.Subscription{PubsubName: "bus", Topic: "own", Route: "/many", DisableTopicValidation: true}
			return s.AddTopicEventHandler(sub, func(_ context.Context, e *common.TopicEvent) (bool, error) {
				got <- string(e.RawData)
				return false, nil
			})
		})
		p := sidecar(t, overGRPC, port, bus+`---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: many}
spec:
  pubsubname: bus
  topic: many
  routes: {default: /many}
  bulkSubscribe: {enabled: true, maxMessagesCount: 10, maxAwaitDurationMs: 50}
`)
		all := map[string]bool{}
		for n := range events {
			p.publish("many", fmt.Sprint(n))
		}
		for range events {
			all[receive(t, got, "an event")] = true
		}
		if len(all) != events {
			t.Errorf("%d of %d events arrived", len(all), events)
		}
	})
}

// declaredYAML has the route of the app in YAML.
const declaredYAML = `---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec:
  pubsubname: bus
  topic: declared/with/slashes
  routes:
    rules: [{match: 'event.type == "never"', path: /nowhere}]
    default: /declared
`

func TestDeclarativeSubscription(t *testing.T) {
	t.Parallel()
	matrix(t, func(t *testing.T, w wire, bus string) {
		got := make(chan *common.InvocationEvent, 8)
		port := app(t, w, func(s common.Service) error {
			if w == overGRPC {
				// The SDK refuses events of topics that it does not know.
				sub := &common.Subscription{PubsubName: "bus", Topic: "declared/with/slashes", Route: "/declared"}
				return s.AddTopicEventHandler(sub, func(_ context.Context, e *common.TopicEvent) (bool, error) {
					got <- &common.InvocationEvent{Data: e.RawData, ContentType: e.DataContentType}
					return false, nil
				})
			}
			// Only the handler is the app's; the subscription is YAML.
			return s.AddServiceInvocationHandler("/declared", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
				got <- in
				return nil, nil
			})
		})
		p := sidecar(t, w, port, bus+declaredYAML)
		p.publish("declared/with/slashes", `{"n":1}`)
		e := receive(t, got, "the event")
		if w == overGRPC {
			if string(e.Data) != `{"n":1}` || e.ContentType != "application/json" {
				t.Errorf("got %s as %s", e.Data, e.ContentType)
			}
		} else if !strings.Contains(string(e.Data), `"data":{"n":1}`) || !strings.HasPrefix(e.ContentType, "application/cloudevents+json") {
			t.Errorf("got %s as %s", e.Data, e.ContentType)
		}
		// The same subscription twice, from YAML and from the app, is one.
		p.publish("declared/with/slashes", `{"n":2}`)
		if e := receive(t, got, "the second event"); !strings.Contains(string(e.Data), `{"n":2}`) {
			t.Errorf("got %s after the first event", e.Data)
		}
	})
}

func TestWildcardAndRawPayload(t *testing.T) {
	t.Parallel()
	matrix(t, func(t *testing.T, w wire, bus string) {
		wild, raw := make(chan string, 8), make(chan string, 8)
		to := func(c chan string) common.TopicEventHandler {
			return func(_ context.Context, e *common.TopicEvent) (bool, error) { c <- string(e.RawData); return false, nil }
		}
		port := app(t, w, func(s common.Service) error {
			return errors.Join(
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "fleet/*", Route: "/fleet"}, to(wild)),
				s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "raw", Route: "/raw", Metadata: map[string]string{"rawPayload": "true"}}, to(raw)),
			)
		})
		p := sidecar(t, w, port, bus)
		p.publish("fleet/7", `{"car":7}`)
		if data := receive(t, wild, "the event of the wildcard"); data != `{"car":7}` {
			t.Errorf("got %s", data)
		}
		p.publish("raw", `{"n":1}`) // an event, which a raw subscription takes as it is
		if data := receive(t, raw, "the raw event"); !strings.Contains(data, `"data":{"n":1}`) {
			t.Errorf("got %s", data)
		}
	})
}

const bindingsYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "@every 1s"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: bindings.localstorage, version: v1, metadata: [{name: rootPath, value: "OUT"}]}
`

func TestInputBinding(t *testing.T) {
	t.Parallel()
	for _, w := range []wire{overHTTP, overGRPC} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			out := t.TempDir()
			var failed atomic.Bool
			ticks := make(chan *common.BindingEvent, 64)
			port := app(t, w, func(s common.Service) error {
				return s.AddBindingInvocationHandler("tick", func(_ context.Context, in *common.BindingEvent) ([]byte, error) {
					if !failed.Swap(true) {
						return nil, errors.New("not this one")
					}
					ticks <- in
					return []byte(`{"to":["store"],"operation":"create","metadata":{"fileName":"reply.json"},"data":{"from":"reply"}}`), nil
				})
			})
			sidecar(t, w, port, strings.Replace(bindingsYAML, "OUT", out, 1))
			receive(t, ticks, "a tick of the cron binding, tried again")
			if w == overGRPC {
				return // over gRPC this SDK has no words for a reply
			}
			eventually(t, "the reply is carried out", func() bool {
				b, err := os.ReadFile(filepath.Join(out, "reply.json"))
				return err == nil && string(b) == `{"from":"reply"}`
			})
		})
	}
}

func TestHealthOfTheApp(t *testing.T) {
	t.Parallel()
	matrix(t, func(t *testing.T, w wire, bus string) {
		var well atomic.Bool
		got := make(chan string, 8)
		port := app(t, w, func(s common.Service) error {
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
		p := sidecar(t, w, port, bus, "--enable-app-health-check", "--app-health-probe-interval", "1")
		p.publish("t", `1`)
		well.Store(true)
		if data := receive(t, got, "the event after the app got well"); data != "1" {
			t.Errorf("got %s", data)
		}
		resp, err := http.Get(p.api + "/metadata")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		doc, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(doc), `"protocol":"`+string(w)+`"`) || !strings.Contains(string(doc), `"type":"PROGRAMMATIC"`) {
			t.Errorf("metadata: %s, %v", doc, err)
		}
		if w == overHTTP && !strings.Contains(string(doc), `"healthCheckPath":"/healthz"`) {
			t.Errorf("metadata: %s", doc)
		}
	})
}
