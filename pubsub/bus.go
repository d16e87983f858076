package pubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Bus is one configured broker: the type everybody but implementations uses.
type Bus struct {
	name, app string
	group     string
	// prefix stands before every topic on the broker: the namespace, when the
	// component asks for that.
	prefix   string
	scopes   scopes
	instance *component.Instance[Driver]
	policy   atomic.Pointer[resilience.Policy] // of publishing; nil: none
	calls    *telemetry.Calls                  // of publishing
	tracer   *trace.Tracer
	system   string  // the kind of broker, for spans
	delayer  Delayer // nil: a broker that cannot delay refuses to
}

// New makes the bus of a component; nothing is opened before Run.
func New(def component.Definition, env component.Env, c config.Component) (*Bus, error) {
	o, problems := component.Decode[common](def.Type, c.Metadata, def.Options)
	if errs, _ := problems.Split(false); len(errs) > 0 {
		return nil, fault.As(fault.Invalid, errs)
	}
	s, err := newScopes(o, env.AppID)
	if err != nil {
		return nil, err
	}
	b := &Bus{name: c.Name, app: env.AppID, group: strings.TrimSpace(o.ConsumerID), scopes: s, calls: env.Metrics.Calls(telemetry.Publish, c.Name)}
	b.tracer, b.system = env.Tracer, strings.TrimPrefix(def.Type, "pubsub.")
	if b.group == "" {
		b.group = env.AppID
	}
	if slices.ContainsFunc(c.Metadata, func(it config.Item) bool { return it.Namespaced }) {
		b.prefix = env.Namespace
	}
	b.instance = component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout)
	return b, nil
}

// Instance returns the component's life: opening, state, closing.
func (b *Bus) Instance() *component.Instance[Driver] { return b.instance }

// Name returns the component's name.
func (b *Bus) Name() string { return b.name }

// PublishRequest is one event to publish, as an app sends it.
type PublishRequest struct {
	Topic string
	Data  []byte
	// Event is published in place of Data and ContentType when it is set: an event
	// that was read already and need not be scanned once more.
	Event       *cloudevents.Event
	ContentType string            // empty: text/plain
	Metadata    map[string]string // rawPayload, ttlInSeconds, delay, deliverAt, partitionKey, orderingKey, cloudevent.*
	TraceParent string            // W3C trace context of the request; empty: a new trace begins
	TraceState  string
}

// ErrEnvelope marks a publish that failed while its envelope was made.
var ErrEnvelope = errors.New("make envelope")

// ErrMetadata marks a publish whose request metadata cannot be used.
var ErrMetadata = errors.New("read request metadata")

// Publish wraps the data into an envelope (unless rawPayload or already a
// CloudEvent) and returns when the broker has it. Kinds: Denied when the topic
// is out of scope, NotFound when the topic is empty, Invalid for bad metadata,
// Unavailable and the rest from the broker.
func (b *Bus) Publish(ctx context.Context, r *PublishRequest) (err error) {
	if err := b.mayPublish(r.Topic); err != nil {
		return err
	}
	began := b.calls.Begin()
	ctx, span := b.begin(ctx, r.Topic, r.from(b.tracer), nil)
	defer func() {
		b.calls.DoneIn(span.TraceID(), r.Topic, began, err)
		span.Done(err)
	}()
	traced := r.in(span)
	p := b.policy.Load()
	if p == nil {
		_, err := b.publish(ctx, traced, nil)
		return err
	}
	var batch []Message
	return p.Do(ctx, func(ctx context.Context) (err error) {
		batch, err = b.publish(ctx, traced, batch)
		return err
	})
}

// publish is one try. It returns what it made of the request for the next one,
// so that what is published twice has the same id.
func (b *Bus) publish(ctx context.Context, r *PublishRequest, batch []Message) ([]Message, error) {
	d, err := b.instance.Acquire()
	if err != nil {
		return batch, b.lost(err)
	}
	defer b.instance.Release()
	f := features(d)
	if batch == nil {
		m, err := b.message(r, f)
		if err != nil {
			return nil, err
		}
		batch = []Message{m}
	}
	if later(&batch[0], f) {
		err = b.delayer.Delay(ctx, b.name, b.prefix+r.Topic, batch)
	} else {
		err = d.Publish(ctx, b.prefix+r.Topic, batch)
	}
	return batch, b.failure(r.Topic, err)
}

// later tells whether a message is for the delayer.
func later(m *Message, f Features) bool { return !f.Delay && !m.DeliverAt.IsZero() }

// failure makes the error of a publish of one message.
func (b *Bus) failure(topic string, err error) error {
	if err == nil {
		return nil
	}
	if be, ok := errors.AsType[*BatchError](err); ok && len(be.Errs) == 1 {
		err = be.Errs[0]
	}
	return fault.Wrap(b.instance.Hide(err), "publish to %s/%s", b.name, topic)
}

// BulkPublish publishes many events to one topic; errs has one entry per
// request, nil where it was published. err is set when nothing was tried.
func (b *Bus) BulkPublish(ctx context.Context, topic string, rs []PublishRequest) (errs []error, err error) {
	if err := b.mayPublish(topic); err != nil {
		return nil, err
	}
	began := b.calls.Begin()
	ctx, span := b.beginBulk(ctx, topic, rs)
	defer func() { span.Done(err) }()
	k := &bulk{bus: b, topic: topic, rs: allIn(rs, span)}
	if p := b.policy.Load(); p != nil {
		err = p.Do(ctx, k.try)
	} else {
		err = k.try(ctx)
	}
	if k.errs == nil {
		b.calls.Done(topic, began, err)
		return nil, err
	}
	trace := span.TraceID()
	for _, err := range k.errs {
		b.calls.DoneIn(trace, topic, began, err)
	}
	return k.errs, nil
}

func (b *Bus) mayPublish(topic string) error {
	if topic == "" {
		return fault.New(fault.NotFound, "publish to %s: topic is empty", b.name)
	}
	if !b.scopes.mayPublish(topic) {
		return fault.New(fault.Denied, "publish to %s/%s: topic is not allowed for app id %q", b.name, topic, b.app)
	}
	return nil
}

// Features returns what the broker can do, none while it is opening.
func (b *Bus) Features() Features {
	d, err := b.instance.Driver()
	if err != nil {
		return Features{}
	}
	return features(d)
}

func features(d Driver) Features {
	if f, ok := d.(Featured); ok {
		return f.Features()
	}
	return Features{}
}

// message turns a request into what the broker, or the delayer, stores.
func (b *Bus) message(r *PublishRequest, f Features) (Message, error) {
	m := Message{Data: r.Data, ContentType: r.ContentType, Metadata: r.Metadata, Key: orderingKey(r.Metadata)}
	now := time.Now()
	ttl, _, err := cloudevents.TTL(r.Metadata)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	if m.DeliverAt, err = deliverAt(r.Metadata, now); err != nil {
		return m, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	if later(&m, f) {
		if !m.DeliverAt.After(now) {
			m.DeliverAt = time.Time{}
		} else if b.delayer == nil {
			return m, fmt.Errorf("%w: %w", ErrMetadata, fault.New(fault.Invalid, "publish to %s/%s: this broker cannot delay messages", b.name, r.Topic))
		}
	}
	raw, err := boolean(r.Metadata, "rawPayload")
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	if ttl > 0 && (f.TTL || raw && later(&m, f)) {
		m.Expires = now.Add(ttl)
	}
	m.Metadata = r.beside(raw)
	if raw {
		if r.Event != nil {
			m.Data, m.ContentType = r.Event.JSON(), cloudevents.ContentType
		}
		return m, nil
	}
	parent := r.TraceParent
	if parent == "" { // every event has a trace, as apps that read it expect
		parent = cloudevents.NewTraceParent()
	}
	e, err := wrap(cloudevents.Envelope{
		Source: b.app, Topic: r.Topic, PubSub: b.name, ContentType: r.ContentType,
		TraceParent: parent, TraceState: r.TraceState, Metadata: r.Metadata,
	}, r)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	if ttl > 0 && !f.TTL {
		e = e.WithExpiration(now.Add(ttl))
	}
	if m.Key == "" {
		m.Key, _ = e.Attr("partitionkey")
	}
	m.Data, m.ContentType = e.JSON(), cloudevents.ContentType
	return m, nil
}

func wrap(v cloudevents.Envelope, r *PublishRequest) (*cloudevents.Event, error) {
	if r.Event == nil {
		return v.Wrap(r.Data)
	}
	v.ContentType = cloudevents.ContentType
	return v.Rewrap(r.Event)
}

// Forward publishes bytes as they are, without envelope or scopes: the way of
// dead letters, which must reach their topic whatever the app may use.
func (b *Bus) Forward(ctx context.Context, topic string, body []byte, metadata map[string]string) error {
	return b.forward(ctx, topic, Message{Data: body, ContentType: cloudevents.ContentType, Metadata: metadata})
}

func (b *Bus) forward(ctx context.Context, topic string, m Message) (err error) {
	began := b.calls.Begin()
	defer func() { b.calls.Done(topic, began, err) }()
	d, err := b.instance.Acquire()
	if err != nil {
		return err
	}
	defer b.instance.Release()
	return b.failure(topic, d.Publish(ctx, b.prefix+topic, []Message{m}))
}

// Republish publishes bytes as they are to a topic that the app may publish to:
// the way of a dead letter that is sent somewhere else. A key in the metadata
// orders it as it orders what is published. Kinds as of Publish.
func (b *Bus) Republish(ctx context.Context, topic string, body []byte, metadata map[string]string) error {
	if err := b.mayPublish(topic); err != nil {
		return err
	}
	return b.forward(ctx, topic, Message{
		Data: body, ContentType: cloudevents.ContentType, Metadata: metadata, Key: orderingKey(metadata),
	})
}

// MayPublish returns why the app may not publish to the topic, or nil.
func (b *Bus) MayPublish(topic string) error { return b.mayPublish(topic) }

// Group returns the consumer group of subscriptions that name none.
func (b *Bus) Group() string { return b.group }

// orderingKey reads the key that orders messages, by either of its names.
func orderingKey(metadata map[string]string) string {
	if len(metadata) == 0 {
		return ""
	}
	if key := lookup(metadata, "partitionKey"); key != "" {
		return key
	}
	return lookup(metadata, "orderingKey")
}

// lookup finds a metadata key, in its usual spelling first.
func lookup(metadata map[string]string, key string) string {
	if v, ok := metadata[key]; ok || len(metadata) == 0 {
		return v
	}
	for k, v := range metadata {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}

// boolean reads metadata that is true or false, which it is when it is not there.
func boolean(metadata map[string]string, key string) (bool, error) {
	text := lookup(metadata, key)
	if text == "" {
		return false, nil
	}
	b, err := config.ParseBool(text)
	if err != nil {
		return false, fault.New(fault.Invalid, "read metadata %s: %.40q is not a boolean, use true or false", key, text)
	}
	return b, nil
}

func isTrue(v string) bool {
	if v == "" {
		return false
	}
	b, err := config.ParseBool(v)
	return err == nil && b
}
