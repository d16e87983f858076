// Package redis is the lock store "lock.redis": a key of Redis for each lock,
// as Dapr keeps them, so that both may share a server.
//
// It is opened through [Component]. A lock is the key lock||<app id>||<name>
// with its owner as the value; Redis itself removes it when its time is over. A
// note is a key of its own, which stays.
//
// Promises: every change is one script, so nobody sees half of one. Tokens come
// from a counter that is never behind the server's clock in microseconds, so
// they grow also after the server has lost its data. Locks are as durable as
// the server is: one that fails over to a replica before the replica knows may
// grant a lock twice, which is why a cluster is refused and replicas are taken
// with failover only, as under Dapr.
package redis

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
)

// Component is "lock.redis".
var Component = lock.Define("redis", component.About{
	Summary: "Locks in Redis, in Dapr's own layout",
	Ack:     "A lock is held when the call returns, and as durable as the server makes its keys",
	Limits:  "One server, or one behind sentinels; no cluster. A user of an access control list needs the keys lock||* and penstock:lock:*",
	Scale:   "Every process and every Dapr sidecar on the server sees the same locks",
	Dapr:    "Adds renewal and fencing tokens. A lock that a Dapr sidecar took has no token.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: lockstore
spec:
  type: lock.redis
  version: v1
  metadata:
    - name: redisHost
      value: localhost:6379
`,
}, open)

type options struct {
	client.Options
	RedeliverInterval component.Ignored `meta:"redeliverInterval" doc:"Belongs to streams."`
	ProcessingTimeout component.Ignored `meta:"processingTimeout" doc:"Belongs to streams."`
	QueueDepth        component.Ignored `meta:"queueDepth"        doc:"Belongs to streams."`
	Concurrency       component.Ignored `meta:"concurrency"       doc:"Belongs to streams."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if o.RedisType == "cluster" {
		errs = append(errs, component.OptionErrorf("redisType", "must be node: a cluster may grant a lock twice when it fails over"))
	}
	return errors.Join(errs...)
}

const (
	// fenceKey counts the grants of a server.
	fenceKey = "penstock:lock:fence"
	// notePrefix is before the key of a lock in that of its note.
	notePrefix = "penstock:lock:note:"
)

// KEYS: lock fence; ARGV: owner milliseconds.
const trying = `if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return '0' end
local clock = redis.call('TIME')
local token = clock[1] * 1000000 + clock[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if token <= last then token = last + 1 end
token = string.format('%.0f', token)
redis.call('SET', KEYS[2], token)
return token`

// KEYS: lock; ARGV: owner milliseconds.
const renewing = `local owner = redis.call('GET', KEYS[1])
if not owner then return 1 end
if owner ~= ARGV[1] then return 2 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0`

// KEYS: lock; ARGV: owner.
const unlocking = `local owner = redis.call('GET', KEYS[1])
if not owner then return 1 end
if owner ~= ARGV[1] then return 2 end
redis.call('DEL', KEYS[1])
return 0`

// KEYS: lock note; ARGV: owner text.
const noting = `local owner = redis.call('GET', KEYS[1])
if not owner then return 1 end
if owner ~= ARGV[1] then return 2 end
redis.call('SET', KEYS[2], ARGV[2])
return 0`

// KEYS: note.
const noted = `return redis.call('GET', KEYS[1]) or ''`

type store struct {
	c                               *client.Client
	try, renew, unlock, note, noted client.Script
}

func open(ctx context.Context, env component.Env, o options) (lock.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	if err := alone(ctx, c, o.Failover); err != nil {
		_ = c.Close() // the first error says more
		return nil, err
	}
	return &store{
		c: c, try: client.NewScript(trying), renew: client.NewScript(renewing), unlock: client.NewScript(unlocking),
		note: client.NewScript(noting), noted: client.NewScript(noted),
	}, nil
}

// alone refuses a server with replicas, unless sentinels say who is the master:
// whoever reads the locks of a replica does not see them in time. A server that
// does not tell is taken.
func alone(ctx context.Context, c *client.Client, failover bool) error {
	text, err := c.Do(ctx, c.B().Info().Section("replication").Build()).ToString()
	if failover || err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		number, ok := strings.CutPrefix(strings.TrimSpace(line), "connected_slaves:")
		if n, err := strconv.Atoi(number); ok && err == nil && n > 0 {
			return fault.New(fault.Invalid, "open lock store: the server has %d replicas; use failover with sentinels, or a server without", n)
		}
	}
	return nil
}

// TryLock implements lock.Driver.
func (s *store) TryLock(ctx context.Context, key, owner string, expiry time.Duration) (lock.Grant, error) {
	text, err := s.try.Exec(ctx, s.c.Client, []string{key, fenceKey}, []string{owner, millis(expiry)}).ToString()
	if err != nil {
		return lock.Grant{}, client.Classify(err)
	}
	token, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return lock.Grant{}, fault.New(fault.Internal, "read token: %w", err)
	}
	return lock.Grant{Held: token > 0, Token: token}, nil
}

// Renew implements lock.Driver.
func (s *store) Renew(ctx context.Context, key, owner string, expiry time.Duration) (lock.Status, error) {
	return status(s.renew.Exec(ctx, s.c.Client, []string{key}, []string{owner, millis(expiry)}).AsInt64())
}

// Unlock implements lock.Driver.
func (s *store) Unlock(ctx context.Context, key, owner string) (lock.Status, error) {
	return status(s.unlock.Exec(ctx, s.c.Client, []string{key}, []string{owner}).AsInt64())
}

// Note implements lock.Noter.
func (s *store) Note(ctx context.Context, key string) (string, error) {
	text, err := s.noted.Exec(ctx, s.c.Client, []string{notePrefix + key}, nil).ToString()
	return text, client.Classify(err)
}

// SetNote implements lock.Noter.
func (s *store) SetNote(ctx context.Context, key, owner, text string) (lock.Status, error) {
	return status(s.note.Exec(ctx, s.c.Client, []string{key, notePrefix + key}, []string{owner, text}).AsInt64())
}

func status(n int64, err error) (lock.Status, error) {
	if err != nil {
		return lock.Failed, client.Classify(err)
	}
	return lock.Status(n), nil
}

func millis(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

// Close implements lock.Driver.
func (s *store) Close(context.Context) error { return s.c.Close() }
