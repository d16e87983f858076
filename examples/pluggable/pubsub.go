package main

import (
	"context"
	"sync"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// broker is the pub/sub: each group of a topic has a queue, made when it first
// subscribes.
type broker struct {
	components.UnimplementedPubSubServer

	mu     sync.Mutex
	topics map[string]map[string]*queue // by topic and group
}

func newBroker() *broker { return &broker{topics: map[string]map[string]*queue{}} }

// Init gets the metadata of the Component document. It comes once for each
// component and connection; the call's header x-component-instance names the
// component, for those who keep something for each.
func (b *broker) Init(context.Context, *components.PubSubInitRequest) (*components.PubSubInitResponse, error) {
	return &components.PubSubInitResponse{}, nil
}

// Features says what is there beyond the least: MESSAGE_TTL when ttlInSeconds of
// a message is kept to, BULK_PUBSUB when there is BulkPublish.
func (b *broker) Features(context.Context, *components.FeaturesRequest) (*components.FeaturesResponse, error) {
	return &components.FeaturesResponse{}, nil
}

// Publish returns when the message is as safe as it gets.
func (b *broker) Publish(_ context.Context, r *components.PublishRequest) (*components.PublishResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.topics[r.GetTopic()] {
		if err := q.put(msg{data: r.GetData(), contentType: r.GetContentType(), metadata: r.GetMetadata()}); err != nil {
			return nil, err
		}
	}
	return &components.PublishResponse{}, nil
}

// PullMessages is one subscription. The first message says to what.
func (b *broker) PullMessages(s components.PubSub_PullMessagesServer) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	topic := first.GetTopic()
	if topic.GetName() == "" {
		return status.Error(codes.InvalidArgument, "the first message names no topic")
	}
	return deliver(s.Context(), b.group(topic.GetName(), topic.GetMetadata()["consumerID"]), stream{
		send: func(m *msg) error {
			return s.Send(&components.PullMessagesResponse{
				Id: m.id, TopicName: topic.GetName(), Data: m.data, ContentType: m.contentType, Metadata: m.metadata,
			})
		},
		answer: func() (string, bool, error) {
			a, err := s.Recv()
			return a.GetAckMessageId(), a.GetAckError() != nil, err
		},
	})
}

func (b *broker) group(topic, group string) *queue {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[topic] == nil {
		b.topics[topic] = map[string]*queue{}
	}
	if b.topics[topic][group] == nil {
		b.topics[topic][group] = newQueue()
	}
	return b.topics[topic][group]
}

// Ping tells that the program is well.
func (b *broker) Ping(context.Context, *components.PingRequest) (*components.PingResponse, error) {
	return &components.PingResponse{}, nil
}
