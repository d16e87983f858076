package redis

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/redis/rueidis"

	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Get implements state.Driver: one round trip, whatever the number of keys.
func (s *store) Get(ctx context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	items := make([]state.Item, len(keys))
	if len(keys) == 0 {
		return items, nil
	}
	now := time.Now()
	commands := make(rueidis.Commands, 0, 2*len(keys))
	for _, key := range keys {
		commands = append(commands, s.c.B().Hmget().Key(key).Field("data", "version").Build(), s.c.B().Pttl().Key(key).Build())
	}
	var plain []int // not hashes
	for i, r := range s.c.DoMulti(ctx, commands...) {
		it := &items[i/2]
		if i%2 == 1 {
			if ms, err := r.AsInt64(); err == nil && ms > 0 && it.Found {
				it.Expires = now.Add(time.Duration(ms) * time.Millisecond).UTC()
			}
			continue
		}
		fields, err := r.ToArray()
		if e, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(e.Error(), "WRONGTYPE") {
			plain = append(plain, i/2)
			continue
		}
		if err = client.Classify(err); err != nil {
			if !s.cluster {
				return nil, err
			}
			it.Err = err // other nodes may have answered
			continue
		}
		fill(it, fields)
	}
	s.plain(ctx, keys, items, plain)
	return items, nil
}

func fill(it *state.Item, fields []rueidis.RedisMessage) {
	data, err := fields[0].ToString()
	if err != nil { // it is nil: there is none
		return
	}
	it.Found, it.Value = true, client.Bytes(data)
	it.ETag, _ = fields[1].ToString()
}

// plain reads what is a string and not a hash, as others may have saved it; such
// an item has no version.
func (s *store) plain(ctx context.Context, keys []string, items []state.Item, at []int) {
	if len(at) == 0 {
		return
	}
	commands := make(rueidis.Commands, len(at))
	for i, k := range at {
		commands[i] = s.c.B().Get().Key(keys[k]).Build()
	}
	for i, r := range s.c.DoMulti(ctx, commands...) {
		it := &items[at[i]]
		text, err := r.ToString()
		switch {
		case err == nil:
			it.Found, it.Value = true, client.Bytes(text)
		case !rueidis.IsRedisNil(err):
			it.Err = client.Classify(err)
		}
	}
}

// mark is where a listing goes on: the server's cursor, and keys that it gave
// beyond what was asked for.
type mark struct {
	Cursor uint64   `json:"c,omitempty"`
	Keys   [][]byte `json:"k,omitempty"` // not text: JSON would change what is not UTF-8
}

// Keys implements state.Lister. The server gives some keys twice while it makes
// room for more of them.
func (s *store) Keys(ctx context.Context, prefix, token string, limit int) (keys []string, next string, err error) {
	if s.cluster {
		return nil, "", fault.New(fault.Invalid, "a cluster cannot list its keys")
	}
	var m mark
	if token != "" {
		if err := json.Unmarshal([]byte(token), &m); err != nil {
			return nil, "", fault.New(fault.Invalid, "list keys: the token is not one of this store's")
		}
	}
	pattern := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(prefix) + "*"
	for len(m.Keys) < limit && (token == "" || m.Cursor != 0) {
		e, err := s.c.Do(ctx, s.c.B().Scan().Cursor(m.Cursor).Match(pattern).Count(int64(max(limit, 100))).Build()).AsScanEntry()
		if err != nil {
			return nil, "", client.Classify(err)
		}
		for _, key := range e.Elements {
			m.Keys = append(m.Keys, []byte(key))
		}
		m.Cursor, token = e.Cursor, "begun"
	}
	n := min(limit, len(m.Keys))
	for _, key := range m.Keys[:n] {
		keys = append(keys, string(key))
	}
	m.Keys = m.Keys[n:]
	if m.Cursor == 0 && len(m.Keys) == 0 {
		return keys, "", nil
	}
	text, err := json.Marshal(m)
	return keys, string(text), err
}
