package nats

import (
	"context"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Backlog counts the messages of a subject that wait for a group, those that were
// taken and have no answer among them. The server does not tell their age.
func (r *Consumer) Backlog(ctx context.Context, subject, group string) (b cloudevents.Backlog, err error) {
	names, err := r.conn.streams(ctx, subject, r.o.Streams)
	if err != nil {
		return b, fault.Wrap(Classify(err), "find stream of subject %q", subject)
	}
	for _, name := range names {
		s, err := r.conn.js.Stream(ctx, name)
		if err != nil {
			return b, fault.Wrap(Classify(err), "find stream %q", name)
		}
		_, c, err := r.find(ctx, s, subject, group)
		if err != nil {
			return b, fault.Wrap(Classify(err), "find consumer of %q", subject)
		}
		if c != nil { // it was asked for just now
			info := c.CachedInfo()
			b.Messages += int64(info.NumPending) + int64(info.NumAckPending)
		}
	}
	return b, nil
}
