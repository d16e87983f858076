//go:build services

package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetstreamBroker promises no order: what a member that died held comes back
// after ackWait, behind what was published since.
func jetstreamBroker() *broker {
	b := &broker{
		name: "jetstream",
		resource: func(x *run) string {
			return componentYAML("pubsub.jetstream", "natsURL", "nats://"+x.addr)
		},
		order: noOrder,
	}
	b.watch = func(x *run) (lookFunc, func()) { return watchJetStream(b.addr(), x) }
	// The consumer, not the stream: nats-server 2.9 removes the files of a stream
	// that is made again while it still deletes the one before.
	b.remove = func(ctx context.Context, x *run) error {
		return withJetStream(b.addr(), func(js jetstream.JetStream) error {
			return js.DeleteConsumer(ctx, x.name, x.group()+"-"+x.name)
		})
	}
	b.there = func(ctx context.Context, x *run) (bool, error) {
		err := withJetStream(b.addr(), func(js jetstream.JetStream) error {
			_, err := js.Consumer(ctx, x.name, x.group()+"-"+x.name)
			return err
		})
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	return b.opens("nats", hostOf)
}

func withJetStream(addr string, do func(jetstream.JetStream) error) error {
	conn, err := nats.Connect(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	return do(js)
}

// watchJetStream counts what the consumer has not delivered and what it has and
// waits for an answer, which the server tells in one.
func watchJetStream(addr string, x *run) (lookFunc, func()) {
	conn, err := nats.Connect(addr, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.RetryOnFailedConnect(true))
	if err != nil {
		x.Error(err)
		return func(context.Context) (seen, error) { return seen{}, err }, func() {}
	}
	js, err := jetstream.New(conn)
	if err != nil {
		x.Error(err)
	}
	return func(ctx context.Context) (s seen, err error) {
		c, err := js.Consumer(ctx, x.name, x.group()+"-"+x.name)
		if err != nil {
			return s, err
		}
		info := c.CachedInfo()
		return seen{count: int(info.NumPending) + info.NumAckPending}, nil
	}, conn.Close
}
