package runtime

import (
	"context"
	"maps"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/state"
)

// wishOutboxes adds a route for each state store with an outbox: from the rows
// that transactions left in it to the topic.
func (r *Runtime) wishOutboxes(out map[string]wish, waiting map[string]error) {
	for _, p := range r.parts.all() {
		if p.state == nil || p.state.Queue() == nil {
			continue
		}
		name := "outbox/" + p.config.Name
		if !p.ready() {
			waiting[name] = errClosed
			continue
		}
		out[name] = wish{running: running{sum: r.sumOf(p.config.Name)}, make: func(context.Context) (router.Route, error) { return r.routes.outbox(name, p.state), nil }}
	}
}

// outbox makes the route of a store's outbox. Nothing is given up: an event
// whose topic cannot be published to waits until it can.
func (rs *routes) outbox(name string, s *state.Store) router.Route {
	to := s.Outbox()
	return router.Route{
		Name: name, Source: s.Queue(), Lanes: defaultLanes,
		Targets: []router.Target{{
			Name: "pubsub:" + to.PubSub + "/" + to.Topic, Policy: resilience.Policy{Timeout: defaultTimeout},
			Send: func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
				row, err := state.ReadRow(d.Body)
				if err == nil {
					err = rs.parts.publishRow(ctx, to, &row)
				}
				if err == nil { // part of the delivery, so that a stop waits for it
					err = s.Queue().Published(ctx, &row)
				}
				if err != nil {
					return cloudevents.Retried(err, 0)
				}
				return cloudevents.Acked()
			},
		}},
	}
}

// publishRow publishes one event of an outbox.
func (ps *parts) publishRow(ctx context.Context, to state.Outbox, row *state.Row) error {
	bus, err := ps.bus(to.PubSub)
	if err != nil {
		return err
	}
	metadata := map[string]string{"cloudevent.id": row.ID, "orderingKey": row.Key}
	maps.Copy(metadata, row.Metadata)
	return bus.Publish(ctx, &pubsub.PublishRequest{
		Topic: to.Topic, Data: row.Data, ContentType: row.ContentType, Metadata: metadata, TraceParent: row.Trace,
	})
}
