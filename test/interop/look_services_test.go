//go:build services

package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/nats-io/nats.go"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
)

func lookRedis(t *testing.T, addr, topic string) func(context.Context) (layout, error) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Del(context.WithoutCancel(t.Context()), topic); _ = c.Close() })
	return func(ctx context.Context) (layout, error) {
		streams, err := c.XRead(ctx, &redis.XReadArgs{Streams: []string{topic, "0"}, Count: 1, Block: patience}).Result()
		if err != nil {
			return layout{}, err
		}
		l := layout{Fields: map[string]string{}}
		for name, value := range streams[0].Messages[0].Values {
			if name == "data" {
				l.Body = fmt.Sprint(value)
			} else {
				l.Fields[name] = fmt.Sprint(value)
			}
		}
		return l, nil
	}
}

// lookRabbitMQ binds a queue of its own to the topic's exchange.
func lookRabbitMQ(t *testing.T, addr, topic string) func(context.Context) (layout, error) {
	t.Helper()
	conn, err := amqp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	queue := topic + "-look"
	if err := ch.ExchangeDeclare(topic, "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, q := range []string{topic + "-dapr-" + topic, topic + "-penstock-" + topic} {
			_, _ = ch.QueueDelete(q, false, false, false) // where there is one
		}
		_ = ch.ExchangeDelete(topic, false, false)
	})
	if _, err := ch.QueueDeclare(queue, false, true, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(queue, "", topic, false, nil); err != nil {
		t.Fatal(err)
	}
	messages, err := ch.Consume(queue, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (layout, error) {
		select {
		case m := <-messages:
			fields := map[string]string{
				"exchange": m.Exchange, "routingKey": m.RoutingKey, "contentType": m.ContentType, "contentEncoding": m.ContentEncoding,
				"deliveryMode": fmt.Sprint(m.DeliveryMode), "priority": fmt.Sprint(m.Priority), "expiration": m.Expiration,
				"messageId": m.MessageId, "correlationId": m.CorrelationId, "type": m.Type, "appId": m.AppId,
			}
			for name, value := range m.Headers {
				fields["header "+name] = fmt.Sprintf("%T %v", value, value)
			}
			return layout{Fields: fields, Body: string(m.Body)}, nil
		case <-ctx.Done():
			return layout{}, ctx.Err()
		}
	}
}

func lookKafka(t *testing.T, addr, topic string) func(context.Context) (layout, error) {
	t.Helper()
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	servers := strings.Split(addr, ",")
	admin, err := sarama.NewClusterAdmin(servers, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.DeleteTopic(topic); _ = admin.Close() })
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (layout, error) {
		consumer, err := sarama.NewConsumer(servers, config)
		if err != nil {
			return layout{}, err
		}
		defer consumer.Close()
		partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
		if err != nil {
			return layout{}, err
		}
		defer partition.Close()
		select {
		case m := <-partition.Messages():
			fields := map[string]string{"key": string(m.Key)}
			for _, h := range m.Headers {
				fields["header "+string(h.Key)] = string(h.Value)
			}
			return layout{Fields: fields, Body: string(m.Value)}, nil
		case <-ctx.Done():
			return layout{}, ctx.Err()
		}
	}
}

// lookJetStream also makes the stream, as Dapr's component wants it.
func lookJetStream(t *testing.T, addr, topic string) func(context.Context) (layout, error) {
	t.Helper()
	conn, err := nats.Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: topic, Subjects: []string{topic}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = js.DeleteStream(topic) })
	return func(ctx context.Context) (layout, error) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			m, err := js.GetMsg(topic, 1)
			if err == nil {
				fields := map[string]string{"subject": m.Subject}
				for name := range m.Header {
					fields["header "+name] = m.Header.Get(name)
				}
				return layout{Fields: fields, Body: string(m.Data)}, nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return layout{}, err
			}
		}
	}
}
