package nats

import (
	"context"

	"github.com/penstock-io/penstock/fault"
)

// Backlog counts the messages of a subject that wait for a group, those that were
// taken and have no answer among them.
func (r *Consumer) Backlog(ctx context.Context, subject, group string) (count int64, err error) {
	names, err := r.conn.streams(ctx, subject, r.o.Streams)
	if err != nil {
		return 0, fault.Wrap(Classify(err), "find stream of subject %q", subject)
	}
	for _, name := range names {
		s, err := r.conn.js.Stream(ctx, name)
		if err != nil {
			return 0, fault.Wrap(Classify(err), "find stream %q", name)
		}
		_, c, err := r.find(ctx, s, subject, group)
		if err != nil {
			return 0, fault.Wrap(Classify(err), "find consumer of %q", subject)
		}
		if c != nil { // it was asked for just now
			info := c.CachedInfo()
			count += int64(info.NumPending) + int64(info.NumAckPending)
		}
	}
	return count, nil
}
