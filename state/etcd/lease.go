package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/penstock-io/penstock/state"
)

// leases are those that one request needs: one for each time to live.
type leases struct {
	s  *store
	of map[time.Duration]clientv3.LeaseID
}

// grant returns the lease of a time to live; none when it has no end.
func (l *leases) grant(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	if ttl <= 0 {
		return clientv3.NoLease, nil
	}
	ttl = state.Whole(ttl)
	if id, ok := l.of[ttl]; ok {
		return id, nil
	}
	id, err := l.s.c.Lease(ctx, ttl)
	if err != nil {
		return clientv3.NoLease, err
	}
	l.of[ttl] = id
	return id, nil
}

// revoke gives back leases that nothing hangs on.
func (l *leases) revoke(ctx context.Context) {
	for _, id := range l.of {
		l.s.c.GiveBack(ctx, id)
	}
}
