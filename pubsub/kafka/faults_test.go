package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// TestTopicMissing has brokers that make no topics: whoever needs one is told
// what to do, and goes on when somebody did.
func TestTopicMissing(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	brokers, topic := addresses(c), conform.Unique(t)
	d := opened(t, brokers, nil)
	defer shut(t, d)
	told := func(what string, err error) {
		t.Helper()
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), topic) || !strings.Contains(err.Error(), "create it") {
			t.Errorf("%s a topic that is not there: %v", what, err)
		}
	}
	told("publish to", d.Publish(t.Context(), topic, []pubsub.Message{text("1")}))
	told("prepare", d.(pubsub.Preparer).Prepare(t.Context(), pubsub.Subscription{Topic: topic, Group: "app"}))
	told("subscribe to", d.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: "app"}, nil))

	if err := create(t.Context(), brokers, topic, 1); err != nil {
		t.Fatal(err)
	}
	prepare(t, d, topic)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, text("2"))
	m.want(t, "2").Settle(cloudevents.Acked())
	until(t, "commit", func() bool { return committed(t, brokers, "app", topic) == 1 })
	if err := c.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	told("go on reading", <-m.done)
}
