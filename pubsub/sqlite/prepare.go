package sqlite

import (
	"context"
	"database/sql"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Prepare implements pubsub.Preparer: what is published once it has returned
// waits for the group.
func (d *driver) Prepare(ctx context.Context, s pubsub.Subscription) error {
	err := d.b.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := d.b.ensureGroup(tx, s.Topic, s.Group)
		return err
	})
	return fault.Wrap(err, "make group %q of topic %q", s.Group, s.Topic)
}
