//go:build services

package ledger

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// redisBroker has the group of a stream; the stream keeps what is acknowledged.
func redisBroker() *broker {
	b := &broker{
		name:     "redis",
		resource: func(x *run) string { return componentYAML("pubsub.redis", "redisHost", x.addr) },
		order:    oneReplica,
		every:    100 * time.Millisecond, // a look asks for all that is pending
	}
	b.watch = func(x *run) (lookFunc, func()) { return watchRedis(b.addr(), x.name, x.group()) }
	b.remove = func(ctx context.Context, x *run) error {
		return redis(b.addr(), func(c rueidis.Client) error {
			return c.Do(ctx, c.B().XgroupDestroy().Key(x.name).Group(x.group()).Build()).Error()
		})
	}
	b.there = func(ctx context.Context, x *run) (there bool, err error) {
		err = redis(b.addr(), func(c rueidis.Client) error {
			groups, err := c.Do(ctx, c.B().XinfoGroups().Key(x.name).Build()).ToArray()
			for i := range groups {
				info, err := groups[i].AsMap()
				if err != nil {
					return err
				}
				name := info["name"]
				text, err := name.ToString()
				if err != nil {
					return err
				}
				there = there || text == x.group()
			}
			return err
		})
		return there, err
	}
	return b.opens("redis", func(addr string) string { return addr })
}

func dialRedis(addr string) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, DisableRetry: true, ForceSingleClient: true})
}

func redis(addr string, do func(rueidis.Client) error) error {
	c, err := dialRedis(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// heldByGroup answers with what a group holds: what is behind the last that it
// was given, and what it was given and is pending, read at one time.
const heldByGroup = `local held, last = {}, ''
for _, g in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if g[2] == ARGV[1] then last = g[8] end
end
if last == '' then return redis.error_reply('NOGROUP') end
for _, e in ipairs(redis.call('XRANGE', KEYS[1], '(' .. last, '+')) do held[#held + 1] = table.concat(e[2], ' ') end
for _, p in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100000)) do
  local e = redis.call('XRANGE', KEYS[1], p[1], p[1])
  if e[1] then held[#held + 1] = table.concat(e[1][2], ' ') end
end
return held`

// watchRedis reads which events wait for the group.
func watchRedis(addr, stream, group string) (lookFunc, func()) {
	var c rueidis.Client
	look := func(ctx context.Context) (s seen, err error) {
		if c == nil {
			if c, err = dialRedis(addr); err != nil {
				return s, err
			}
		}
		entries, err := c.Do(ctx, c.B().Eval().Script(heldByGroup).Numkeys(1).Key(stream).Arg(group).Build()).AsStrSlice()
		if err != nil { // such as that there is no group
			return s, err
		}
		s.held = make(map[string]bool, len(entries))
		for _, e := range entries {
			if id, ok := idIn([]byte(e)); ok {
				s.held[id] = true
			}
		}
		return s, nil
	}
	return look, func() {
		if c != nil {
			c.Close()
		}
	}
}
