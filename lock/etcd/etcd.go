// Package etcd is the lock store "lock.etcd": a key of an etcd cluster for each
// lock, on a lease that lasts as long as the lock.
//
// It is opened through [Component]. Dapr has none.
//
// Promises: a lock is held when the majority of the cluster has it, and outlives
// the connection and the process that asked for it. Its time is kept by the
// cluster, which rounds it up: whole seconds, 2 at least by a cluster's own
// settings, and up to a second more until the key is gone. The fencing token is
// the cluster's revision at the grant.
package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	client "github.com/penstock-io/penstock/client/etcd"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
)

// Component is "lock.etcd".
var Component = lock.Define("etcd", component.About{
	Summary: "Locks in an etcd cluster, each on a lease",
	Ack:     "A lock is held when the majority of the cluster has it",
	Limits:  "A lock may last a few seconds longer than it was asked for, never shorter: the cluster counts whole seconds, 2 at least. Tokens begin anew in a cluster that was restored from a snapshot",
	Scale:   "Every process that uses the cluster sees the same locks",
	Dapr:    "Dapr has no such lock store.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: lockstore
spec:
  type: lock.etcd
  version: v1
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
}

// Check implements component.Checker.
func (o options) Check() error { return o.Options.Check() }

type store struct {
	c    *client.Client
	path string // before every key
}

func open(ctx context.Context, env component.Env, o options) (lock.Driver, error) {
	path := o.KeyPrefixPath + "/"
	c, err := client.Open(ctx, env, o.Options, path)
	if err != nil {
		return nil, err
	}
	return &store{c: c, path: path}, nil
}

// TryLock implements lock.Driver. That the lock is held is found by a read, so
// that tries in vain write nothing and need no lease.
func (s *store) TryLock(ctx context.Context, key, owner string, expiry time.Duration) (lock.Grant, error) {
	if holder, err := s.holder(ctx, key); err != nil || holder != nil {
		return lock.Grant{}, err
	}
	lease, err := s.c.Lease(ctx, expiry)
	if err != nil {
		return lock.Grant{}, err
	}
	res, err := s.c.Commit(ctx,
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.path+key), "=", 0)},
		clientv3.OpPut(s.path+key, owner, clientv3.WithLease(lease)))
	switch {
	case err != nil: // the lock may be held all the same, until the lease is over
		return lock.Grant{}, err
	case !res.Succeeded:
		s.c.GiveBack(ctx, lease)
		return lock.Grant{}, nil
	}
	return lock.Grant{Held: true, Token: res.Header.Revision}, nil
}

// held is a lock as it was read.
type held struct {
	owner    string
	granted  int64 // revision of the grant
	revision int64 // of the last renewal
	lease    clientv3.LeaseID
}

// holder reads who holds a lock; nil is nobody.
func (s *store) holder(ctx context.Context, key string) (*held, error) {
	ctx, cancel := s.c.Bound(ctx)
	defer cancel()
	res, err := s.c.Get(ctx, s.path+key)
	if err != nil {
		return nil, client.Classify(err)
	}
	if len(res.Kvs) == 0 {
		return nil, nil
	}
	kv := res.Kvs[0]
	return &held{string(kv.Value), kv.CreateRevision, kv.ModRevision, clientv3.LeaseID(kv.Lease)}, nil
}

// Renew implements lock.Driver: the key is hung on a new lease.
func (s *store) Renew(ctx context.Context, key, owner string, expiry time.Duration) (lock.Status, error) {
	var lease clientv3.LeaseID
	st, err := s.change(ctx, key, owner, func() (op clientv3.Op, err error) {
		if lease == clientv3.NoLease {
			lease, err = s.c.Lease(ctx, expiry)
		}
		return clientv3.OpPut(s.path+key, owner, clientv3.WithLease(lease)), err
	})
	if err == nil && st != lock.Done && lease != clientv3.NoLease {
		s.c.GiveBack(ctx, lease)
	}
	return st, err
}

// Unlock implements lock.Driver.
func (s *store) Unlock(ctx context.Context, key, owner string) (lock.Status, error) {
	return s.change(ctx, key, owner, func() (clientv3.Op, error) { return clientv3.OpDelete(s.path + key), nil })
}

// notePrefix is before the key of a lock in that of its note.
const notePrefix = "note||"

// Note implements lock.Noter.
func (s *store) Note(ctx context.Context, key string) (string, error) {
	ctx, cancel := s.c.Bound(ctx)
	defer cancel()
	res, err := s.c.Get(ctx, s.path+notePrefix+key)
	if err != nil || len(res.Kvs) == 0 {
		return "", client.Classify(err)
	}
	return string(res.Kvs[0].Value), nil
}

// SetNote implements lock.Noter. A renewal meanwhile does no harm: the lock is
// the same as long as it was made by the same grant.
func (s *store) SetNote(ctx context.Context, key, owner, text string) (lock.Status, error) {
	h, err := s.holder(ctx, key)
	switch {
	case err != nil:
		return lock.Failed, err
	case h == nil:
		return lock.Missing, nil
	case h.owner != owner:
		return lock.Foreign, nil
	}
	res, err := s.c.Commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.path+key), "=", h.granted)},
		clientv3.OpPut(s.path+notePrefix+key, text))
	switch {
	case err != nil:
		return lock.Failed, err
	case !res.Succeeded:
		return lock.Missing, nil
	}
	return lock.Done, nil
}

// changeTries bounds how often a change is begun whose lock was changed between
// the read and the write, as by a renewal of the same owner.
const changeTries = 10

// change carries out an operation on the lock that owner holds, unless it has
// changed meanwhile, and gives back the lease that it hung on.
func (s *store) change(ctx context.Context, key, owner string, op func() (clientv3.Op, error)) (lock.Status, error) {
	for range changeTries {
		h, err := s.holder(ctx, key)
		switch {
		case err != nil:
			return lock.Failed, err
		case h == nil:
			return lock.Missing, nil
		case h.owner != owner:
			return lock.Foreign, nil
		}
		do, err := op()
		if err != nil {
			return lock.Failed, err
		}
		res, err := s.c.Commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.path+key), "=", h.revision)}, do)
		switch {
		case err != nil:
			return lock.Failed, err
		case res.Succeeded:
			s.c.GiveBack(ctx, h.lease)
			return lock.Done, nil
		}
	}
	return lock.Failed, fault.New(fault.Unavailable, "change lock: it was changed %d times meanwhile", changeTries)
}

// Close implements lock.Driver.
func (s *store) Close(context.Context) error { return s.c.Close() }
