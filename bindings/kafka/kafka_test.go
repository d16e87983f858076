package kafka

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConformance(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.GroupMinSessionTimeout(time.Second), kfake.AllowAutoTopicCreation(),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "3000000"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	suite(t, strings.Join(c.ListenAddrs(), ","))
}

// suite runs what every binding promises on brokers.
func suite(t *testing.T, addresses string) {
	t.Helper()
	s := server(addresses)
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			topic := conform.Unique(t)
			s.create(t, topic)
			return map[string]string{
				"brokers": addresses, "topics": topic, "publishTopic": topic, "consumerGroup": topic,
				"initialOffset": "oldest", "heartbeatInterval": "50ms",
			}
		},
		Wrong: map[string]map[string]string{
			"brokers":      {"brokers": "noport"},
			"saslUsername": {"authType": "password", "saslPassword": "x"},
			"authType":     {"authType": "awsiam"},
			"fetchMaxWait": {"fetchMaxWait": "0s"},
		},
		Feed: s.feed,
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"partitionKey": "k"}}}
		},
		RoundTrip: s.roundTrip,
		Fails: []conform.BindingFailure{{
			Name:    "a partition that is not there",
			Request: bindings.Request{Operation: "create", Metadata: map[string]string{"partitionNumber": "99"}}, Kind: fault.Invalid,
		}},
	})
}

// server is the addresses of brokers, seen through another client library.
type server string

func (f server) create(t *testing.T, topic string) {
	t.Helper()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(strings.Split(string(f), ",")...), Transport: transport}
	res, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: topic, NumPartitions: 2, ReplicationFactor: -1},
	}})
	if err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
}

func (f server) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	k, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.Split(string(f), ",")...), kgo.ProducerBatchMaxBytes(2<<20))...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (f server) feed(t *testing.T, options map[string]string, bodies ...string) {
	t.Helper()
	k := f.client(t)
	defer k.Close()
	for _, body := range bodies {
		r := &kgo.Record{Topic: options["topics"], Value: []byte(body)}
		if err := k.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func (f server) roundTrip(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error) {
	t.Helper()
	id := conform.Unique(t)
	if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"id": id}}); err != nil {
		return nil, err
	}
	k := f.client(t, kgo.ConsumeTopics(options["publishTopic"]), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer k.Close()
	var last []byte
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for last == nil {
		fetches := k.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, r := range fetches.Records() {
			if len(r.Headers) == 1 && string(r.Headers[0].Value) == id {
				last = append([]byte{}, r.Value...)
			}
		}
	}
	return last, nil
}
