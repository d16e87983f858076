package pluggable_test

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/pubsub/inmemory"
)

// bus is the pub/sub of a program: topics in memory that outlive the program's
// server, as those of a real broker do.
type bus struct {
	components.UnimplementedPubSubServer
	features []string
	ids      ids

	mu      sync.Mutex
	store   pubsub.Driver
	inits   []map[string]string // in order
	by      []string            // who said Init
	topics  []*components.Topic // subscribed to
	single  int                 // publishes of one message
	bulk    int
	errors  []string // of answers
	unknown int      // answers about ids that were not given out
}

func newBus(features ...string) *bus {
	store, err := inmemory.Component.Open(context.Background(), component.Env{Name: "store"}, nil)
	if err != nil {
		panic(err)
	}
	return &bus{store: store.(pubsub.Driver), features: features}
}

func (b *bus) Init(ctx context.Context, r *components.PubSubInitRequest) (*components.PubSubInitResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inits = append(b.inits, r.GetMetadata().GetProperties())
	b.by = append(b.by, instance(ctx))
	return &components.PubSubInitResponse{}, nil
}

func (b *bus) Features(context.Context, *components.FeaturesRequest) (*components.FeaturesResponse, error) {
	return &components.FeaturesResponse{Features: b.features}, nil
}

func (b *bus) Publish(ctx context.Context, r *components.PublishRequest) (*components.PublishResponse, error) {
	b.mu.Lock()
	b.single++
	b.mu.Unlock()
	return &components.PublishResponse{}, b.put(ctx, r.GetTopic(), r.GetData(), r.GetMetadata())
}

func (b *bus) BulkPublish(ctx context.Context, r *components.BulkPublishRequest) (*components.BulkPublishResponse, error) {
	b.mu.Lock()
	b.bulk++
	b.mu.Unlock()
	resp := &components.BulkPublishResponse{}
	for _, e := range r.GetEntries() {
		switch body := string(e.GetEvent()); body {
		case "refused":
			resp.FailedEntries = append(resp.FailedEntries, &components.BulkPublishResponseFailedEntry{EntryId: e.GetEntryId(), Error: "not this one"})
			continue
		case "confused":
			resp.FailedEntries = append(resp.FailedEntries, &components.BulkPublishResponseFailedEntry{EntryId: "99"})
			continue
		}
		if err := b.put(ctx, r.GetTopic(), e.GetEvent(), e.GetMetadata()); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

func (b *bus) put(ctx context.Context, topic string, data []byte, metadata map[string]string) error {
	switch string(data) {
	case "refused":
		return status.Error(codes.InvalidArgument, "not this one")
	case "full":
		return status.Error(codes.ResourceExhausted, "full")
	}
	m := pubsub.Message{Data: data, Metadata: metadata}
	if ttl, err := time.ParseDuration(metadata["ttlInSeconds"] + "s"); err == nil {
		m.Expires = time.Now().Add(ttl)
	}
	return b.store.Publish(ctx, topic, []pubsub.Message{m})
}

func (b *bus) PullMessages(stream components.PubSub_PullMessagesServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	topic := first.GetTopic()
	if topic == nil {
		return status.Error(codes.InvalidArgument, "no topic")
	}
	b.mu.Lock()
	b.topics = append(b.topics, topic)
	b.mu.Unlock()
	p := &pulled{bus: b, open: map[string]*cloudevents.Delivery{}}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer p.leaveAll()
	go func() {
		defer cancel()
		p.answers(stream)
	}()
	return b.store.Subscribe(ctx, pubsub.Subscription{Topic: topic.GetName(), Group: topic.GetMetadata()["consumerID"]},
		func(_ context.Context, d *cloudevents.Delivery) error {
			return stream.Send(&components.PullMessagesResponse{
				Data: d.Body, TopicName: cmp.Or(d.Topic, topic.GetName()), Metadata: d.Metadata, Id: p.give(d),
			})
		})
}

// pulled is one stream of a bus.
type pulled struct {
	bus  *bus
	mu   sync.Mutex
	open map[string]*cloudevents.Delivery
}

func (p *pulled) give(d *cloudevents.Delivery) string {
	id := d.Metadata["id"]
	if id == "" {
		id = p.bus.ids.next()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[id] = d
	return id
}

func (p *pulled) answers(stream components.PubSub_PullMessagesServer) {
	for {
		a, err := stream.Recv()
		if err != nil {
			return
		}
		p.mu.Lock()
		d := p.open[a.GetAckMessageId()]
		delete(p.open, a.GetAckMessageId())
		p.mu.Unlock()
		p.bus.mu.Lock()
		if d == nil {
			p.bus.unknown++
		}
		if e := a.GetAckError(); e != nil {
			p.bus.errors = append(p.bus.errors, e.GetMessage())
		}
		p.bus.mu.Unlock()
		switch {
		case d == nil:
		case a.GetAckError() != nil:
			d.Settle(cloudevents.Retried(errors.New(a.GetAckError().GetMessage()), 0))
		default:
			d.Settle(cloudevents.Acked())
		}
	}
}

// leaveAll gives what was not answered back to the store.
func (p *pulled) leaveAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.open {
		d.Settle(cloudevents.Left("the stream has ended"))
	}
}

var _ components.PubSubServer = (*bus)(nil)
