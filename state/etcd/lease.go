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
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := l.s.c.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return 0, classify(err)
	}
	l.of[ttl] = res.ID
	return res.ID, nil
}

// revoke gives back leases that nothing hangs on. One that cannot be given back
// ends by itself.
func (l *leases) revoke(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	for _, id := range l.of {
		_, _ = l.s.c.Revoke(ctx, id)
	}
}
