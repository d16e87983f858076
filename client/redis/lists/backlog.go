package lists

import (
	"context"

	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Backlog counts what the list has, and what was taken out of it and is not settled,
// whoever has it. Of the age of what is in the list the server knows nothing.
func (r *Reader) Backlog(ctx context.Context) (cloudevents.Backlog, error) {
	c := r.o.Client
	var b cloudevents.Backlog
	for _, res := range c.DoMulti(ctx,
		c.B().Llen().Key(r.o.List).Build(), c.B().Llen().Key(r.keys.moved).Build(), c.B().Hlen().Key(r.keys.body).Build()) {
		n, err := res.AsInt64()
		if err != nil {
			return cloudevents.Backlog{}, fault.Wrap(redis.Classify(err), "count entries of list %q", r.o.List)
		}
		b.Messages += n
	}
	return b, nil
}
