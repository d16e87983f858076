package sqlite

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

// Backlog implements pubsub.Backlogged. It reads beside everything else, which it
// does not hold up.
func (d *driver) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	var b cloudevents.Backlog
	var created int64
	err := d.b.db.Read().QueryRowContext(ctx, `WITH q AS (SELECT id FROM pubsub_queues WHERE topic = ?1 AND consumer = ?2)
		SELECT (SELECT count(*) FROM (SELECT 1 FROM pubsub_pending WHERE queue = (SELECT id FROM q) LIMIT ?3)),
			coalesce((SELECT created FROM pubsub_messages WHERE id = (SELECT min(id) FROM pubsub_pending WHERE queue = (SELECT id FROM q))), 0)`,
		s.Topic, s.Group, countMost).Scan(&b.Messages, &created)
	if err != nil {
		return cloudevents.Backlog{}, fault.Wrap(err, "count messages of group %q", s.Group)
	}
	if created > 0 {
		b.Oldest = time.UnixMilli(created)
	}
	return b, nil
}
