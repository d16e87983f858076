package pluggable

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
)

// Features that a component may say it has. Others are only shown.
const (
	ttlFeature      = "MESSAGE_TTL"
	bulkFeature     = "BULK_PUBSUB"
	wildcardFeature = "SUBSCRIBE_WILDCARDS"
)

// Names in metadata, as Dapr has them.
const (
	consumerIDKey   = "consumerID"
	partitionKeyKey = "partitionKey"
	ttlKey          = "ttlInSeconds"
	ttlShortKey     = "ttl"
)

// broker is a pub/sub component.
type broker struct {
	*link
	name     string
	features []string
}

func openBroker(path string) func(context.Context, component.Env, map[string]string) (pubsub.Driver, error) {
	return func(ctx context.Context, env component.Env, options map[string]string) (pubsub.Driver, error) {
		if lookup(options, consumerIDKey) == "" {
			options = with(options, consumerIDKey, env.AppID)
		}
		b := &broker{name: env.Name}
		var err error
		b.link, err = openLink(ctx, path, env, func(ctx context.Context, conn *grpc.ClientConn) error {
			features, err := greetBroker(ctx, conn, options)
			if b.features == nil { // those of a later process are not looked at
				b.features = features
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		return b, nil
	}
}

// greetBroker says Init and returns the features, which are not nil.
func greetBroker(ctx context.Context, conn *grpc.ClientConn, options map[string]string) ([]string, error) {
	if _, err := serves(ctx, conn, components.PubSub_ServiceDesc.ServiceName); err != nil {
		return nil, err
	}
	client := components.NewPubSubClient(conn)
	if _, err := client.Init(ctx, &components.PubSubInitRequest{Metadata: &components.MetadataRequest{Properties: options}}); err != nil {
		return nil, failed(err, "init")
	}
	r, err := client.Features(ctx, &components.FeaturesRequest{})
	if err != nil {
		return nil, failed(err, "ask for features")
	}
	return append([]string{}, r.GetFeatures()...), nil
}

// Capabilities implements [component.Capable].
func (b *broker) Capabilities() []string { return b.features }

// Features implements [pubsub.Featured].
func (b *broker) Features() pubsub.Features {
	return pubsub.Features{
		TTL: slices.Contains(b.features, ttlFeature), GiveBack: true, Wildcards: slices.Contains(b.features, wildcardFeature),
	}
}

// Publish implements [pubsub.Driver]. Several messages go in one call when the
// component has bulk publishing.
func (b *broker) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	c, err := b.connection(ctx)
	if err != nil {
		return err
	}
	client := components.NewPubSubClient(c)
	if len(batch) > 1 && slices.Contains(b.features, bulkFeature) {
		return b.publishBulk(ctx, client, topic, batch)
	}
	if len(batch) == 1 {
		return b.publish(ctx, client, topic, &batch[0])
	}
	errs := make([]error, len(batch))
	for i := range batch {
		if errs[i] = b.publish(ctx, client, topic, &batch[i]); fault.Retriable(errs[i]) {
			for j := i + 1; j < len(batch); j++ { // not tried: they would overtake this one
				errs[j] = errs[i]
			}
			break
		}
	}
	if errors.Join(errs...) == nil {
		return nil
	}
	return &pubsub.BatchError{Errs: errs}
}

func (b *broker) publish(ctx context.Context, client components.PubSubClient, topic string, m *pubsub.Message) error {
	metadata, late := outgoing(m)
	if late {
		return nil
	}
	if err := tooLarge(m.Data); err != nil {
		return err
	}
	_, err := client.Publish(ctx, &components.PublishRequest{
		Data: m.Data, PubsubName: b.name, Topic: topic, Metadata: metadata, ContentType: m.ContentType,
	})
	return failed(err, "publish")
}

func (b *broker) publishBulk(ctx context.Context, client components.PubSubClient, topic string, batch []pubsub.Message) error {
	r := &components.BulkPublishRequest{PubsubName: b.name, Topic: topic}
	for i := range batch {
		m := &batch[i]
		if metadata, late := outgoing(m); !late {
			r.Entries = append(r.Entries, &components.BulkMessageEntry{
				EntryId: strconv.Itoa(i), Event: m.Data, ContentType: m.ContentType, Metadata: metadata,
			})
		}
	}
	if len(r.Entries) == 0 {
		return nil
	}
	resp, err := client.BulkPublish(ctx, r)
	if err != nil {
		return failed(err, "publish")
	}
	if len(resp.GetFailedEntries()) == 0 {
		return nil
	}
	errs := make([]error, len(batch))
	for _, f := range resp.GetFailedEntries() {
		i, err := strconv.Atoi(f.GetEntryId())
		if err != nil || i < 0 || i >= len(batch) {
			return fault.New(fault.Internal, "publish: the component says that an entry %q failed, which it was not given", line(f.GetEntryId()))
		}
		errs[i] = fault.New(fault.Internal, "publish: %s", line(f.GetError()))
	}
	return &pubsub.BatchError{Errs: errs}
}

// outgoing is the metadata that says the rest about a message; late tells that
// it is worth nothing any more.
func outgoing(m *pubsub.Message) (metadata map[string]string, late bool) {
	metadata = m.Metadata
	if m.Key != "" && lookup(metadata, partitionKeyKey) == "" {
		metadata = with(metadata, partitionKeyKey, m.Key)
	}
	if m.Expires.IsZero() {
		return metadata, false
	}
	// What the app said counts from when it published: a delayed message has
	// used some of it up.
	left := time.Until(m.Expires)
	metadata = with(metadata, ttlKey, strconv.Itoa(int((left+time.Second-1)/time.Second)))
	maps.DeleteFunc(metadata, func(k, _ string) bool { return strings.EqualFold(k, ttlShortKey) })
	return metadata, left <= 0
}

// Subscribe implements [pubsub.Driver].
func (b *broker) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	topic := &components.Topic{Name: s.Topic, Metadata: s.Metadata}
	if lookup(s.Metadata, consumerIDKey) == "" {
		topic.Metadata = with(s.Metadata, consumerIDKey, s.Group)
	}
	for {
		x, err := b.exchange(ctx, true, func(ctx context.Context, c *connection) (wire, error) {
			return pull(ctx, components.NewPubSubClient(c), topic)
		})
		if err == nil {
			err = x.run(ctx, b.link, func(ctx context.Context, m message) error {
				d := &cloudevents.Delivery{Body: m.data, Metadata: m.metadata, Topic: m.topic, Key: lookup(m.metadata, partitionKeyKey)}
				return x.emit(ctx, m.id, d, emit)
			})
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, errLeft):
			return err
		}
		if resilience.Sleep(ctx, leavePause) != nil {
			return nil
		}
	}
}

// pulling is the stream of a subscription.
type pulling struct {
	components.PubSub_PullMessagesClient
}

func pull(ctx context.Context, client components.PubSubClient, topic *components.Topic) (wire, error) {
	stream, err := client.PullMessages(ctx)
	if err != nil {
		return nil, failed(err, "subscribe")
	}
	_ = stream.Send(&components.PullMessagesRequest{Topic: topic}) // Recv has the reason when it fails
	return pulling{stream}, nil
}

// Recv implements wire.
func (p pulling) Recv() (message, error) {
	m, err := p.PubSub_PullMessagesClient.Recv()
	return message{id: m.GetId(), topic: m.GetTopicName(), contentType: m.GetContentType(), data: m.GetData(), metadata: m.GetMetadata()}, err
}

// Send implements wire.
func (p pulling) Send(a answer) error {
	r := &components.PullMessagesRequest{AckMessageId: a.id}
	if a.failed {
		r.AckError = &components.AckMessageError{Message: a.why}
	}
	return p.PubSub_PullMessagesClient.Send(r)
}

// with returns a copy of metadata with one more pair.
func with(metadata map[string]string, key, value string) map[string]string {
	out := make(map[string]string, len(metadata)+1)
	maps.Copy(out, metadata)
	maps.DeleteFunc(out, func(k, _ string) bool { return strings.EqualFold(k, key) })
	out[key] = value
	return out
}

// lookup finds a key in any case.
func lookup(metadata map[string]string, key string) string {
	if v, ok := metadata[key]; ok {
		return v
	}
	for k, v := range metadata {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}
