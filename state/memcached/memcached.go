// Package memcached is the state store "state.memcached": values in the memory
// of one or several memcached servers.
//
// It is opened through [Component]. Keys and values are those of Dapr's
// component; a key that memcached cannot take is kept under a digest of it.
//
// Promises: a change is done when the key's server says so, and every later read
// sees it. The server forgets what it has no room for and, when it stops, all:
// what must not be lost belongs elsewhere.
package memcached

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.memcached".
var Component = state.Define("memcached", component.About{
	Summary: "Values in the memory of memcached servers, which may forget them",
	Ack:     "A change is done when the server of its key has it in memory, and gone when the server needs the room or stops",
	Limits:  "1 MiB for a key and its value, unless the server says otherwise",
	Scale:   "Any number of processes share the servers; all must list them in the same order",
	Dapr: "Same keys and values. Keys of more than 250 bytes, or with spaces or control characters, which Dapr cannot save, are kept under a digest. " +
		"ETags and first-write work, through memcached's own compare-and-swap; a server that was started again counts its ETags from the beginning. Times to live beyond 2038 end there",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: cache
spec:
  type: state.memcached
  version: v1
  metadata:
    - name: hosts
      value: localhost:11211
`,
}, open)

type options struct {
	Hosts   []string `meta:"hosts,required" doc:"Addresses of the servers; keys are spread over them." example:"10.0.0.1:11211,10.0.0.2:11211"`
	MaxIdle int      `meta:"maxIdleConnections" default:"2" doc:"Most idle connections kept to one server."`
	Timeout string   `meta:"timeout" default:"1000" doc:"How long one request may take: a duration, or a number of milliseconds." example:"500ms"`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	for _, host := range o.Hosts {
		if _, _, err := net.SplitHostPort(host); err != nil {
			errs = append(errs, component.OptionErrorf("hosts", "%q is not an address such as localhost:11211", host))
		}
	}
	if o.MaxIdle < 0 {
		errs = append(errs, component.OptionErrorf("maxIdleConnections", "must not be negative"))
	}
	if d, err := o.timeout(); err != nil || d <= 0 {
		errs = append(errs, component.OptionErrorf("timeout", "%q is neither a duration nor a number of milliseconds above 0", o.Timeout))
	}
	return errors.Join(errs...)
}

// timeout reads the option of that name, where a bare number is milliseconds.
func (o options) timeout() (time.Duration, error) {
	if ms, err := strconv.ParseUint(o.Timeout, 10, 31); err == nil {
		return time.Duration(ms) * time.Millisecond, nil
	}
	return config.ParseDuration(o.Timeout)
}

// parallel is how many changes are under way at once.
const parallel = 10

type store struct{ c *memcache.Client }

func open(_ context.Context, _ component.Env, o options) (state.Driver, error) {
	var servers memcache.ServerList
	if err := servers.SetServers(o.Hosts...); err != nil {
		return nil, fault.New(fault.Unavailable, "look up memcached servers: %w", err)
	}
	s := &store{c: memcache.NewFromSelector(&servers)}
	s.c.MaxIdleConns = o.MaxIdle
	s.c.Timeout, _ = o.timeout() // Check looked at it
	if err := s.c.Ping(); err != nil {
		_ = s.c.Close() // the first error says more
		return nil, fault.Wrap(classify(err), "connect to memcached")
	}
	return s, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true, TTL: true} }

// Get implements state.Driver: one request for each server.
func (s *store) Get(ctx context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	if err := ctx.Err(); err != nil { // the library does not look at it
		return nil, err
	}
	stored := make([]string, len(keys))
	for i, key := range keys {
		stored[i] = legal(key)
	}
	found, err := s.c.GetMulti(stored)
	if err != nil {
		return nil, classify(err)
	}
	items := make([]state.Item, len(keys))
	for i, key := range stored {
		if it, ok := found[key]; ok {
			items[i] = state.Item{Found: true, Value: it.Value, ETag: strconv.FormatUint(it.CasID, 10)}
		}
	}
	return items, nil
}

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, func(ctx context.Context, c *state.Change) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return classify(s.change(c))
	})
}

func (s *store) change(c *state.Change) error {
	item := &memcache.Item{Key: legal(c.Key), Value: c.Value, Expiration: expiration(c.TTL, time.Now())}
	switch {
	case c.ETag != nil:
		var err error
		if item.CasID, err = strconv.ParseUint(*c.ETag, 10, 64); err != nil {
			return fault.New(fault.Invalid, "read ETag: it is not one of this store's")
		}
		if c.Delete { // there is no delete that compares: swap in what is over at once
			item.Value, item.Expiration = nil, over
		}
		return s.c.CompareAndSwap(item)
	case c.Delete:
		if err := s.c.Delete(item.Key); !errors.Is(err, memcache.ErrCacheMiss) {
			return err
		}
		return nil
	case c.FirstWrite:
		return s.c.Add(item)
	}
	return s.c.Set(item)
}

const (
	// longest is the longest time to live that memcached takes for one; what is
	// above is a date to it.
	longest = 30 * 24 * time.Hour
	// over makes an item expire at once.
	over = -1
)

// expiration is a time to live in memcached's form; zero is for ever.
func expiration(ttl time.Duration, now time.Time) int32 {
	switch {
	case ttl <= 0:
		return 0
	case ttl <= longest:
		return int32(state.Whole(ttl) / time.Second)
	}
	return int32(min(now.Add(ttl).Unix(), math.MaxInt32))
}

// mostKey is the longest key that memcached takes, in bytes.
const mostKey = 250

// legal is the key under which an item is kept: itself, where memcached takes
// it, else a digest behind the prefix that keeps apps apart.
func legal(key string) string {
	fits := func(key string, most int) bool {
		return key != "" && len(key) <= most && strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
	}
	if fits(key, mostKey) {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	digest := "sha256:" + hex.EncodeToString(sum[:])
	prefix, _, ok := strings.Cut(key, "||")
	if prefix += "||"; ok && fits(prefix, mostKey-len(digest)) {
		return prefix + digest
	}
	return digest
}

// classify gives an error of the library its kind.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, memcache.ErrCASConflict), errors.Is(err, memcache.ErrCacheMiss):
		return fault.New(fault.Conflict, "the item has another ETag, or is not there")
	case errors.Is(err, memcache.ErrNotStored):
		return fault.New(fault.Conflict, "the item is there already, or is not there any more")
	case strings.Contains(err.Error(), "too large"):
		return fault.As(fault.Invalid, err)
	case strings.Contains(err.Error(), "out of memory"):
		return fault.As(fault.Exhausted, err)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if _, late := errors.AsType[*memcache.ConnectTimeoutError](err); late {
		return fault.As(fault.Timeout, err)
	}
	if kind := fault.KindOf(err); kind != fault.Internal {
		return fault.As(kind, err)
	}
	return fault.As(fault.Unavailable, err) // a connection that broke in the middle of an answer
}

// Close implements component.Driver.
func (s *store) Close(context.Context) error { return s.c.Close() }
