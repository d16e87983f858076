package kafka

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// fake starts a cluster in this process.
func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	opts = append([]kfake.Opt{
		kfake.NumBrokers(2), kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(3),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0", "message.max.bytes": "3000000"}),
	}, opts...)
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func opened(t testing.TB, items ...config.Item) *driver {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{
		AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{},
	}, append(items, config.Item{Name: "heartbeatInterval", Value: "50ms"}))
	if err != nil {
		t.Fatal(err)
	}
	return d.(*driver)
}

func brokers(c *kfake.Cluster) config.Item {
	return config.Item{Name: "brokers", Value: join(c.ListenAddrs())}
}

func join(all []string) (text string) {
	for i, s := range all {
		if i > 0 {
			text += ","
		}
		text += s
	}
	return text
}

func TestConformance(t *testing.T) {
	c := fake(t)
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		return conform.Apart(opened(t, brokers(c)), conform.Unique(t))
	}, conform.PubSubSetup{Patience: 20 * time.Second, GroupsByBroker: true})
}

// TestWatermill has one partition in each topic: there is no order across them.
func TestWatermill(t *testing.T) {
	c := fake(t, kfake.DefaultNumPartitions(1))
	conform.Watermill(t, func(t *testing.T) pubsub.Driver {
		return apart{opened(t, brokers(c), config.Item{Name: "rebalanceDrain", Value: "200ms"})}
	})
}

// apart gives each topic a group of its own: the suite reads dozens of topics
// as one group and joins and leaves all the time, and every one of that shares
// out the partitions of all.
type apart struct{ *driver }

func (a apart) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	s.Group += s.Topic
	return a.driver.Subscribe(ctx, s, emit)
}

func (a apart) Prepare(ctx context.Context, s pubsub.Subscription) error {
	s.Group += s.Topic
	return a.driver.Prepare(ctx, s)
}

func TestPrepared(t *testing.T) {
	d := opened(t, brokers(fake(t)))
	conform.Prepared(t, d)
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
