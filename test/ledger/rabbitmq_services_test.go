//go:build services

package ledger

import (
	"context"
	"net/url"

	amqp "github.com/rabbitmq/amqp091-go"
)

// hostOf is host:port of a URL.
func hostOf(addr string) string {
	u, err := url.Parse(addr)
	if err != nil {
		panic(err)
	}
	return u.Host
}

// rabbitBroker keeps queues while nobody consumes.
func rabbitBroker() *broker {
	b := &broker{
		name: "rabbitmq",
		resource: func(x *run) string {
			return componentYAML("pubsub.rabbitmq", "connectionString", "amqp://guest:guest@"+x.addr+"/", "durable", "true", "deletedWhenUnused", "false")
		},
		order: oneReplica,
		idle:  true,
	}
	queue := func(x *run) string { return x.group() + "-" + x.name }
	b.watch = func(x *run) (lookFunc, func()) { return watchRabbit(b.addr(), queue(x)) }
	b.remove = func(_ context.Context, x *run) error {
		return rabbit(b.addr(), func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete(queue(x), false, false, false)
			return err
		})
	}
	b.there = func(_ context.Context, x *run) (bool, error) {
		err := rabbit(b.addr(), func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(queue(x), true, false, false, false, nil)
			return err
		})
		return err == nil, nil
	}
	return b.opens("rabbitmq", hostOf)
}

func rabbit(addr string, do func(*amqp.Channel) error) error {
	conn, err := amqp.Dial("amqp://guest:guest@" + addr + "/")
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return do(ch)
}

// watchRabbit counts the messages of a queue. A server tells over AMQP only of
// those that are not under way, so the count is right while no sidecar runs.
func watchRabbit(addr, queue string) (lookFunc, func()) {
	var conn *amqp.Connection
	var ch *amqp.Channel
	look := func(context.Context) (s seen, err error) {
		if conn == nil || conn.IsClosed() {
			if conn, err = amqp.Dial("amqp://guest:guest@" + addr + "/"); err != nil {
				return s, err
			}
			ch = nil
		}
		if ch == nil || ch.IsClosed() {
			if ch, err = conn.Channel(); err != nil {
				return s, err
			}
		}
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		return seen{count: q.Messages}, err
	}
	return look, func() {
		if conn != nil {
			conn.Close()
		}
	}
}
