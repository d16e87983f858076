package postgres

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// countMost bounds what is counted, so that a large backlog costs no more than a
// fraction of a second.
const countMost = 1_000_000

// Backlog implements pubsub.Backlogged: one statement that locks nothing.
func (d *driver) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	var b cloudevents.Backlog
	var created *time.Time
	err := d.do(ctx, func(ctx context.Context) error {
		return d.db.Pool().QueryRow(ctx, d.sql.backlog, s.Topic, s.Group, countMost).Scan(&b.Messages, &created)
	})
	if err != nil {
		return cloudevents.Backlog{}, fault.Wrap(err, "count messages of group %q", s.Group)
	}
	if created != nil {
		b.Oldest = *created
	}
	return b, nil
}
