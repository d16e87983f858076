package api

import (
	"context"
	"errors"
	"maps"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Publish publishes one event and returns when the broker has it. The data of
// r is kept by the broker and must not be changed afterwards.
func (a *API) Publish(ctx context.Context, bus string, r *pubsub.PublishRequest) error {
	b, err := a.bus(bus, r.Topic, r.Metadata)
	if err != nil {
		return err
	}
	if err := b.Publish(ctx, r); err != nil {
		return a.publishError(bus, r.Topic, err)
	}
	return nil
}

// MaxBulkEntries bounds the events of one [Bulk]: a small event takes many times
// its size in the request once it has an envelope.
const MaxBulkEntries = 10_000

// Bulk is many events for one topic, at most [MaxBulkEntries].
type Bulk struct {
	PubSub, Topic string
	// Metadata is that of every entry that does not have the key itself.
	Metadata map[string]string
	Trace    Trace
	Entries  []BulkEntry
}

// BulkEntry is one event of a [Bulk]. ID must not be empty and is unique in it.
type BulkEntry struct {
	ID          string
	Data        []byte
	ContentType string
	Metadata    map[string]string
}

// BulkFailure is one entry that was not published.
type BulkFailure struct {
	ID  string
	Err error
}

// BulkPublish publishes many events to one topic and returns those that were
// not published. An error means that none was; it is a PublishMessage problem
// when the broker could not be used at all, and then every entry is listed too.
func (a *API) BulkPublish(ctx context.Context, bulk *Bulk) ([]BulkFailure, error) {
	b, err := a.bus(bulk.PubSub, bulk.Topic, bulk.Metadata)
	if err != nil {
		return nil, err
	}
	if err := bulk.check(); err != nil {
		return nil, err
	}
	common := bulk.Trace.Carry(bulk.Metadata)
	rs := make([]pubsub.PublishRequest, len(bulk.Entries))
	for i, e := range bulk.Entries {
		rs[i] = pubsub.PublishRequest{
			Topic: bulk.Topic, Data: e.Data, ContentType: e.ContentType,
			Metadata:    under(common, e.Metadata),
			TraceParent: bulk.Trace.Parent, TraceState: bulk.Trace.State,
		}
	}
	errs, err := b.BulkPublish(ctx, bulk.Topic, rs)
	if err != nil {
		failed := a.publishError(bulk.PubSub, bulk.Topic, err)
		if failed.Problem != PublishMessage {
			return nil, failed
		}
		return bulk.all(err), failed
	}
	var failures []BulkFailure
	for i, err := range errs {
		if err != nil {
			failures = append(failures, BulkFailure{ID: bulk.Entries[i].ID, Err: err})
		}
	}
	return failures, nil
}

// check makes sure that there are not too many entries and that each can be named
// in the answer.
func (b *Bulk) check() error {
	if len(b.Entries) > MaxBulkEntries {
		return b.problem(BulkEntries, "more than %d events in one request; send them in several", MaxBulkEntries)
	}
	seen := make(map[string]struct{}, len(b.Entries))
	for i, e := range b.Entries {
		if e.ID == "" {
			return b.problem(BulkEntries, "entry %d has no entryId", i)
		}
		if _, twice := seen[e.ID]; twice {
			return b.problem(BulkEntries, "entry %d: entryId %q is used twice", i, e.ID)
		}
		seen[e.ID] = struct{}{}
	}
	return nil
}

// Malformed makes the error of a bulk that cannot be read.
func (b *Bulk) Malformed(format string, args ...any) error {
	return b.problem(BulkEvents, format, args...)
}

func (b *Bulk) problem(p Problem, format string, args ...any) error {
	return Errorf(p, format, args...).on("pubsub", b.PubSub).with("topic", b.Topic)
}

func (b *Bulk) all(err error) []BulkFailure {
	failures := make([]BulkFailure, len(b.Entries))
	for i, e := range b.Entries {
		failures[i] = BulkFailure{ID: e.ID, Err: err}
	}
	return failures
}

// under returns over with what it lacks of base; neither is changed.
func under(base, over map[string]string) map[string]string {
	if len(base) == 0 {
		return over
	}
	if len(over) == 0 {
		return base
	}
	m := make(map[string]string, len(base)+len(over))
	maps.Copy(m, base)
	maps.Copy(m, over)
	return m
}

// bus finds the broker and checks what the contract wants checked first.
func (a *API) bus(name, topic string, metadata map[string]string) (*pubsub.Bus, error) {
	if name == "" {
		return nil, noName(metadata)
	}
	b, err := a.rt.PubSub(name)
	if err != nil {
		return nil, a.noBus(name, err)
	}
	if topic == "" {
		return nil, noTopic(name, metadata)
	}
	return b, nil
}

// The texts of these errors, and what their details say, are Dapr's: programs
// look at them.

func noName(metadata map[string]string) *Error {
	return Errorf(PubSubEmpty, "pubsub name is empty").on("pubsub", "").echo(metadata)
}

func noTopic(bus string, metadata map[string]string) *Error {
	return Errorf(TopicEmpty, "topic is empty in pubsub %s", bus).on("pubsub", bus).echo(metadata)
}

// noBus is the error of a broker that is not there; err says so.
func (a *API) noBus(name string, err error) *Error {
	e := wrap(PubSubNotFound, err)
	e.Message = "pubsub " + name + " is not found"
	if !a.rt.Configured("pubsub") {
		e.Problem = PubSubNotConfigured
		e.Message = "pubsub " + name + " is not configured: no pub/sub component is loaded"
	}
	return e
}

func (a *API) forbidden(bus, topic string, err error) *Error {
	e := wrap(PubSubForbidden, err)
	e.Message = "topic " + topic + " is not allowed for app id " + a.app
	return e.on("pubsub", bus).with("topic", topic).with("error", err.Error())
}

// publishError finds the row of what a bus returned.
func (a *API) publishError(bus, topic string, err error) *Error {
	p := PublishMessage
	switch {
	case errors.Is(err, pubsub.ErrMetadata):
		p = PublishMetadata
	case errors.Is(err, pubsub.ErrEnvelope):
		p = PublishEnvelope
	case fault.KindOf(err) == fault.Denied:
		return a.forbidden(bus, topic, err)
	}
	return wrap(p, err).on("pubsub", bus).with("appID", a.app).with("topic", topic).with("error", err.Error())
}
