package grpc_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

func itoa(n int) string { return strconv.Itoa(n) }

// lists is an app that wants these topics.
func lists(list ...*rtv1.TopicSubscription) *fake {
	return &fake{topics: func(context.Context) (*rtv1.ListTopicSubscriptionsResponse, error) {
		return &rtv1.ListTopicSubscriptionsResponse{Subscriptions: list}, nil
	}}
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	c := connect(t, appgrpc.Options{}, lists(
		&rtv1.TopicSubscription{PubsubName: "bus", Topic: "plain"},
		&rtv1.TopicSubscription{PubsubName: "bus"},
		&rtv1.TopicSubscription{Topic: "x"},
		&rtv1.TopicSubscription{
			PubsubName: "bus", Topic: "ruled", DeadLetterTopic: "dead", Metadata: map[string]string{"rawPayload": "true"},
			Routes: &rtv1.TopicRoutes{
				Rules:   []*rtv1.TopicRule{{Match: ` event.type == "a" `, Path: "a"}, {Path: "/b"}},
				Default: "rest",
			},
			BulkSubscribe: &rtv1.BulkSubscribeConfig{Enabled: true},
		},
		&rtv1.TopicSubscription{
			PubsubName: "bus", Topic: "bulk", Routes: &rtv1.TopicRoutes{Rules: []*rtv1.TopicRule{{Match: "true", Path: "a"}}},
			BulkSubscribe: &rtv1.BulkSubscribeConfig{Enabled: true, MaxMessagesCount: 7, MaxAwaitDurationMs: 50},
		},
	))
	got, err := c.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Subscription{
		{PubSub: "bus", Topic: "plain", Rules: []config.Rule{{}}},
		{
			PubSub: "bus", Topic: "ruled", DeadLetterTopic: "dead", Metadata: map[string]string{"rawPayload": "true"},
			Rules: []config.Rule{{Match: `event.type == "a"`, Path: "a"}, {Path: "/b"}, {Path: "rest"}},
			Bulk:  config.Bulk{Enabled: true, MaxMessages: 100, MaxAwait: time.Second},
		},
		{
			PubSub: "bus", Topic: "bulk", Rules: []config.Rule{{Match: "true", Path: "a"}},
			Bulk: config.Bulk{Enabled: true, MaxMessages: 7, MaxAwait: 50 * time.Millisecond},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(config.Place{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}
	if got[1].Place.File != "ListTopicSubscriptions, entry 4" {
		t.Errorf("place = %v", got[1].Place)
	}
}

func TestSubscriptionsOfAnAppWithout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*appgrpc.Channel{
		"unimplemented": connect(t, appgrpc.Options{}, &fake{}),
		"no service":    connect(t, appgrpc.Options{}),
		"none":          connect(t, appgrpc.Options{}, lists()),
		"not asked":     dial(t, "127.0.0.1:1", appgrpc.Options{Disable: []string{"config", "subscribe"}}),
	} {
		if subs, err := c.Subscriptions(t.Context()); len(subs) != 0 || err != nil {
			t.Errorf("%s: %v, %v", name, subs, err)
		}
	}
}

func TestSubscriptionsAreAskedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	c := connect(t, appgrpc.Options{}, &fake{topics: func(context.Context) (*rtv1.ListTopicSubscriptionsResponse, error) {
		if asked.Add(1) < 3 {
			return nil, errors.New("not yet")
		}
		return &rtv1.ListTopicSubscriptionsResponse{Subscriptions: []*rtv1.TopicSubscription{{PubsubName: "b", Topic: "t"}}}, nil
	}})
	if subs, err := c.Subscriptions(t.Context()); len(subs) != 1 || err != nil || asked.Load() != 3 {
		t.Errorf("%v, %v after %d questions", subs, err, asked.Load())
	}
}

func TestTooManySubscriptions(t *testing.T) {
	t.Parallel()
	many := make([]*rtv1.TopicSubscription, app.MaxSubscriptions+1)
	for i := range many {
		many[i] = &rtv1.TopicSubscription{PubsubName: "b", Topic: "t"}
	}
	rules := make([]*rtv1.TopicRule, app.MaxRules+1)
	for i := range rules {
		rules[i] = &rtv1.TopicRule{Path: "x"}
	}
	for _, f := range []*fake{lists(many...), lists(&rtv1.TopicSubscription{PubsubName: "b", Topic: "t", Routes: &rtv1.TopicRoutes{Rules: rules}})} {
		if _, err := connect(t, appgrpc.Options{}, f).Subscriptions(t.Context()); fault.KindOf(err) != fault.Invalid {
			t.Errorf("error = %v, want one of kind invalid", err)
		}
	}
}

func TestWantsBinding(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	c := connect(t, appgrpc.Options{}, &fake{bindings: func(context.Context) (*rtv1.ListInputBindingsResponse, error) {
		asked.Add(1)
		return &rtv1.ListInputBindingsResponse{Bindings: []string{"a", "b"}}, nil
	}})
	wants := func(name string) bool {
		t.Helper()
		want, err := c.WantsBinding(t.Context(), &app.Address{Binding: name, Path: "/" + name})
		if err != nil {
			t.Fatal(err)
		}
		return want
	}
	if !wants("a") || !wants("b") || wants("c") || asked.Load() != 1 {
		t.Errorf("wrong, or asked %d times", asked.Load())
	}
	if _, err := c.Subscriptions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !wants("a") || asked.Load() != 2 {
		t.Errorf("asked %d times after another app may be there", asked.Load())
	}
}

func TestWantsBindingOfOtherApps(t *testing.T) {
	t.Parallel()
	at := &app.Address{Binding: "a"}
	if want, err := connect(t, appgrpc.Options{}, &fake{}).WantsBinding(t.Context(), at); want || err != nil {
		t.Errorf("unimplemented: %v, %v", want, err)
	}
	broken := connect(t, appgrpc.Options{}, &fake{bindings: func(context.Context) (*rtv1.ListInputBindingsResponse, error) {
		return nil, status.Error(codes.Internal, "broken")
	}})
	if _, err := broken.WantsBinding(t.Context(), at); fault.KindOf(err) != fault.Internal {
		t.Errorf("broken: %v", err)
	}
	silent := connect(t, appgrpc.Options{ProbeTimeout: 20 * time.Millisecond}, &fake{bindings: func(ctx context.Context) (*rtv1.ListInputBindingsResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if _, err := silent.WantsBinding(t.Context(), at); fault.KindOf(err) != fault.Timeout {
		t.Errorf("silent: %v, want a time-out", err)
	}
}
