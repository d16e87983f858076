package kafka

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// fake starts a cluster in this process and returns its addresses.
func fake(t testing.TB, opts ...kfake.Opt) string {
	t.Helper()
	return addresses(cluster(t, opts...))
}

func cluster(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
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

func addresses(c *kfake.Cluster) string { return strings.Join(c.ListenAddrs(), ",") }

// opened opens the component on brokers.
func opened(t testing.TB, brokers string, options map[string]string) pubsub.Driver {
	t.Helper()
	d, err := tryOpen(t.Context(), brokers, options)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tryOpen(ctx context.Context, brokers string, options map[string]string) (pubsub.Driver, error) {
	all := map[string]string{"brokers": brokers, "heartbeatInterval": "50ms"}
	maps.Copy(all, options)
	var items []config.Item
	for name, value := range all {
		items = append(items, config.Item{Name: name, Value: value})
	}
	env := component.Env{AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	d, err := Component.Open(ctx, env, items)
	if err != nil {
		return nil, err
	}
	return d.(pubsub.Driver), nil
}

func shut(t testing.TB, d pubsub.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestSuites(t *testing.T) { suites(t, fake(t)) } // not parallel: the suites count goroutines

// suites runs what every pub/sub promises on brokers.
func suites(t *testing.T, brokers string) {
	t.Helper()
	t.Run("conform", func(t *testing.T) {
		conform.PubSub(t, func(t *testing.T) pubsub.Driver {
			return conform.Apart(opened(t, brokers, nil), conform.Unique(t))
		}, conform.PubSubSetup{GroupsByBroker: true})
	})
	t.Run("watermill", func(t *testing.T) {
		conform.Watermill(t, func(t *testing.T) pubsub.Driver {
			d := opened(t, brokers, map[string]string{"rebalanceDrain": "200ms"})
			return conform.Apart(single{d.(*driver), brokers}, conform.Unique(t))
		})
	})
	t.Run("prepared", func(t *testing.T) {
		d := conform.Apart(opened(t, brokers, nil), conform.Unique(t))
		defer shut(t, d)
		conform.Prepared(t, d)
	})
}

// single has one partition in each topic, since there is no order across them,
// and gives each topic a group of its own: Watermill's suite reads dozens of
// topics as one group and joins and leaves all the time, and every one of that
// shares out the partitions of all.
type single struct {
	*driver
	brokers string
}

func (s single) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	if err := create(ctx, s.brokers, topic, 1); err != nil {
		return err
	}
	return s.driver.Publish(ctx, topic, batch)
}

func (s single) Subscribe(ctx context.Context, sub pubsub.Subscription, emit cloudevents.EmitFunc) error {
	if err := create(ctx, s.brokers, sub.Topic, 1); err != nil {
		return err
	}
	sub.Group += sub.Topic
	return s.driver.Subscribe(ctx, sub, emit)
}

func (s single) Prepare(ctx context.Context, sub pubsub.Subscription) error {
	if err := create(ctx, s.brokers, sub.Topic, 1); err != nil {
		return err
	}
	sub.Group += sub.Topic
	return s.driver.Prepare(ctx, sub)
}

// create makes a topic that is not there.
func create(ctx context.Context, brokers, topic string, partitions int) error {
	c := &kafka.Client{Addr: kafka.TCP(strings.Split(brokers, ",")...)}
	at, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil || len(at.Topics) == 1 && at.Topics[0].Error == nil {
		return err
	}
	_, err = c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: topic, NumPartitions: partitions, ReplicationFactor: -1},
	}})
	return err
}
