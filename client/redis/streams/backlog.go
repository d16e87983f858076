package streams

import (
	"context"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Backlog counts what a group has not read, and what it has read and not
// acknowledged. Where the server does not know how much is not read, as before Redis
// 7 or after somebody deleted entries, that is the length of the stream. An id says
// when its entry was added. It is none of a stream or a group that is not there.
func (g *Groups) Backlog(ctx context.Context, stream, group string) (cloudevents.Backlog, error) {
	c := g.o.Client
	b, err := g.backlog(ctx, stream, group)
	if err != nil {
		said, ok := rueidis.IsRedisErr(err)
		if ok && strings.Contains(said.Error(), "no such key") {
			return cloudevents.Backlog{}, nil
		}
		return cloudevents.Backlog{}, fault.Wrap(redis.Classify(err), "count entries of stream %q", stream)
	}
	if b.group == "" {
		return cloudevents.Backlog{}, nil
	}
	if b.unread > 0 && b.oldest == "" { // nothing is pending
		first, err := c.Do(ctx, c.B().Xrange().Key(stream).Start("("+b.read).End("+").Count(1).Build()).AsXRange()
		if err != nil {
			return cloudevents.Backlog{}, fault.Wrap(redis.Classify(err), "look for the oldest entry of stream %q", stream)
		}
		if len(first) > 0 {
			b.oldest = first[0].ID
		}
	}
	out := cloudevents.Backlog{Messages: b.unread + b.pending}
	if b.oldest != "" {
		ms, _ := parse(b.oldest)
		out.Oldest = time.UnixMilli(int64(ms))
	}
	return out, nil
}

// backlog is what the server says of a group; the zero one when it has none.
type backlog struct {
	group           string
	read            string // the last id that was read
	oldest          string // of what is pending; empty: nothing is
	unread, pending int64
}

func (g *Groups) backlog(ctx context.Context, stream, group string) (b backlog, err error) {
	c := g.o.Client
	rs := c.DoMulti(ctx, c.B().XinfoStream().Key(stream).Build(), c.B().XinfoGroups().Key(stream).Build())
	of, err := rs[0].AsMap()
	if err != nil {
		return b, err
	}
	groups, err := rs[1].ToArray()
	if err != nil {
		return b, err
	}
	for i := range groups {
		info, err := groups[i].AsMap()
		if err != nil {
			return b, err
		}
		name, read, lag, pending := info["name"], info["last-delivered-id"], info["lag"], info["pending"]
		if n, _ := name.ToString(); n != group {
			continue
		}
		b.group = group
		b.read, _ = read.ToString()
		b.pending, _ = pending.AsInt64()
		last, length := of["last-generated-id"], of["length"]
		if newest, _ := last.ToString(); compareID(b.read, newest) >= 0 {
			continue // it has read all
		}
		if b.unread, err = lag.AsInt64(); err != nil { // the server does not know
			b.unread, _ = length.AsInt64()
		}
	}
	if b.pending == 0 {
		return b, nil
	}
	summary, err := c.Do(ctx, c.B().Xpending().Key(stream).Group(group).Build()).ToArray()
	if err == nil && len(summary) > 1 {
		b.oldest, _ = summary[1].ToString() // nil when it was acknowledged meanwhile
	}
	return b, err
}
