// Package redis is the state store "state.redis": a hash for each value, in the
// layout of Dapr's store of that name, so that both may use one database.
//
// It is opened through [Component]. Many keys are read in one round trip, and
// changes are carried out by one script in the server, which is what makes a
// transaction, with its conditions, whole or not done at all.
//
// Promises: a change that returned is in the server's memory, and with the
// consistency "strong" in that of its replicas; what is on its disk is the
// server's matter (appendonly, appendfsync). Every later read sees it. The
// version of an item that is deleted and saved again is never one it had before.
package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.redis".
var Component = state.Define("redis", component.About{
	Summary: "Values in hashes of Redis",
	Ack: "A change is in the server's memory when it returns, with the consistency strong also in that of its replicas. " +
		"What the server loses when it stops is lost: have it write an append-only file",
	Order:  "Changes one after the other",
	Limits: "512 MB for each value. The server needs version 6 or newer and must allow scripts. The keys of a transaction in a cluster must be in one slot, and a cluster cannot list its keys",
	Scale:  "Any number of processes use the server",
	Dapr: "The hashes are the same. Transactions are whole: where a condition does not hold, nothing is changed. " +
		"Answers say when an item expires. What was saved with first-write can be saved again without an ETag. Deleting and saving again never brings back an old ETag. " +
		"Values of Redis' JSON module are not read or written, and there are no queries",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.redis
  version: v1
  metadata:
    - name: redisHost
      value: localhost:6379
`,
}, open)

type options struct {
	client.Options
	TTL               int               `meta:"ttlInSeconds" default:"0" doc:"How long items are kept that do not say, in seconds; 0 or less: for ever."`
	QueryIndexes      component.Ignored `meta:"queryIndexes" doc:"There are no queries."`
	RedeliverInterval component.Ignored `meta:"redeliverInterval" doc:"Belongs to pub/sub."`
	ProcessingTimeout component.Ignored `meta:"processingTimeout" doc:"Belongs to pub/sub."`
}

// longest keeps a time to live within what the server can count.
const longest = 100 * 365 * 24 * 60 * 60

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if o.TTL > longest {
		errs = append(errs, component.OptionErrorf("ttlInSeconds", "must be at most %d", longest))
	}
	return errors.Join(errs...)
}

type store struct {
	c       *client.Client
	script  *rueidis.Lua
	ttl     time.Duration // of what does not say; 0: for ever
	cluster bool
	close   func() error
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	return &store{
		c: c, script: rueidis.NewLuaScript(script), ttl: time.Duration(max(o.TTL, 0)) * time.Second,
		cluster: o.RedisType == "cluster", close: sync.OnceValue(c.Close),
	}, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true, TTL: true} }

// Close lets go of the connection.
func (s *store) Close(context.Context) error { return s.close() }
