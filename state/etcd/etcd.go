// Package etcd is the state store "state.etcd": values in an etcd cluster.
//
// It is opened through [Component]. The keys and values are those of Dapr's
// component: version v1 keeps the bare value, v2 an envelope with the time of
// writing and the time to live.
//
// Promises: a change is confirmed by the majority of the cluster before it
// returns, and every read sees it. The ETag is the revision of the last change.
// A transaction is one of etcd's.
package etcd

import (
	"context"
	"errors"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	client "github.com/penstock-io/penstock/client/etcd"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.etcd".
var Component = state.Define("etcd", component.About{
	Summary: "Values in an etcd cluster",
	Ack:     "A change is done when the majority of the cluster has it",
	Limits:  "1.5 MiB for a request, a whole transaction included, unless the server says otherwise; maxTxnOps (128) changes of a transaction",
	Scale:   "Any number of processes share a store, and see each other's changes at once",
	Dapr: "Logs in with username and password, which Dapr's does not. Same keys and values in both versions, so that both can share a cluster. A transaction fails as a whole when one ETag of it does not hold, and names the items to look at: Dapr checks before, and carries out the rest. " +
		"Saving with an ETag that changed between check and write fails, instead of being reported as done. TLS works with a CA alone, or with none of ca, cert and key. v2 without a time to live stores none, and keys can be listed",
	Versions: []string{"v1", "v2"},
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.etcd
  version: v2
  metadata:
    - name: endpoints
      value: localhost:2379
    - name: keyPrefixPath
      value: penstock
`,
}, open)

type options struct {
	client.Options
	KeyPrefixPath string `meta:"keyPrefixPath" doc:"Stands before every key, followed by a slash."`
	MaxTxnOps     int    `meta:"maxTxnOps" default:"128" doc:"Most changes of a transaction: --max-txn-ops of the servers."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if o.MaxTxnOps < 1 {
		errs = append(errs, component.OptionErrorf("maxTxnOps", "must be 1 at least"))
	}
	return errors.Join(errs...)
}

// parallel is how many changes that cannot go together are under way at once.
const parallel = 10

type store struct {
	c    *client.Client
	path string // before every key
	v2   bool
	most int // operations of one request
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	path := o.KeyPrefixPath + "/"
	c, err := client.Open(ctx, env, o.Options, path)
	if err != nil {
		return nil, err
	}
	return &store{c: c, path: path, v2: env.Version == "v2", most: o.MaxTxnOps}, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features {
	return state.Features{ETag: true, TTL: true, MaxChanges: s.most}
}

// Get implements state.Driver: as many keys in one request as a transaction may
// have.
func (s *store) Get(ctx context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	items := make([]state.Item, 0, len(keys))
	for len(keys) > 0 {
		part := keys[:min(len(keys), s.most)]
		keys = keys[len(part):]
		ops := make([]clientv3.Op, len(part))
		for i, key := range part {
			ops[i] = clientv3.OpGet(s.path + key)
		}
		res, err := s.c.Commit(ctx, nil, ops...)
		if err != nil {
			return nil, err
		}
		for _, r := range res.Responses {
			items = append(items, s.item(r.GetResponseRange().GetKvs()))
		}
	}
	return items, nil
}

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, func(ctx context.Context, c *state.Change) error {
		return s.change(ctx, []state.Change{*c})
	})
}

// Transact implements state.Transactor.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	changes, err := state.Final(changes)
	if err != nil {
		return err
	}
	return s.change(ctx, changes)
}

// change carries out changes of different keys as one.
func (s *store) change(ctx context.Context, changes []state.Change) error {
	var conditions []clientv3.Cmp
	ops := make([]clientv3.Op, 0, len(changes))
	leases := leases{s: s, of: map[time.Duration]clientv3.LeaseID{}}
	for i := range changes {
		c := &changes[i]
		condition, err := s.condition(c)
		if err != nil {
			return err
		}
		conditions = append(conditions, condition...)
		if c.Delete {
			ops = append(ops, clientv3.OpDelete(s.path+c.Key))
			continue
		}
		lease, err := leases.grant(ctx, c.TTL)
		if err != nil {
			leases.revoke(ctx)
			return err
		}
		ops = append(ops, clientv3.OpPut(s.path+c.Key, s.encode(c), clientv3.WithLease(lease)))
	}
	res, err := s.c.Commit(ctx, conditions, ops...)
	switch {
	case err != nil: // it may have been done all the same, so the leases stay
		return err
	case !res.Succeeded:
		leases.revoke(ctx)
		return fault.New(fault.Conflict, "an item has another ETag, is not there, or is there already")
	}
	return nil
}

// condition is what must hold for a change.
func (s *store) condition(c *state.Change) ([]clientv3.Cmp, error) {
	switch {
	case c.ETag != nil:
		revision, err := strconv.ParseInt(*c.ETag, 10, 64)
		if err != nil || revision <= 0 {
			return nil, fault.New(fault.Invalid, "read ETag: it is not one of this store's")
		}
		return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.path+c.Key), "=", revision)}, nil
	case c.FirstWrite:
		return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.path+c.Key), "=", 0)}, nil
	}
	return nil, nil
}

// Keys implements state.Lister. The token is the last key of the page before.
func (s *store) Keys(ctx context.Context, prefix, token string, limit int) ([]string, string, error) {
	ctx, cancel := s.c.Bound(ctx)
	defer cancel()
	from := s.path + prefix
	end := clientv3.GetPrefixRangeEnd(from)
	if token != "" {
		from = s.path + token + "\x00"
	}
	res, err := s.c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)), clientv3.WithKeysOnly())
	if err != nil {
		return nil, "", client.Classify(err)
	}
	keys := make([]string, len(res.Kvs))
	for i, kv := range res.Kvs {
		keys[i] = string(kv.Key[len(s.path):])
	}
	if !res.More || len(keys) == 0 {
		return keys, "", nil
	}
	return keys, keys[len(keys)-1], nil
}

// Close implements component.Driver.
func (s *store) Close(context.Context) error { return s.c.Close() }
