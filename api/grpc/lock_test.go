package grpc_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apigrpc "github.com/penstock-io/penstock/api/grpc"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
)

func (i *instance) LockStore(name string) (*lock.Store, error) {
	if name != "lockstore" {
		return nil, fault.New(fault.NotFound, "lock store %q is not loaded", name)
	}
	return i.locks, nil
}

// cabinet is a lock store that holds for ever what it grants.
type cabinet struct {
	mu     sync.Mutex
	owners map[string]string
	tokens int64
}

var errCabinet = fault.New(fault.Unavailable, "cabinet is stuck")

func (c *cabinet) TryLock(_ context.Context, key, owner string, expiry time.Duration) (lock.Grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case owner == "stuck":
		return lock.Grant{}, errCabinet
	case expiry != 60*time.Second:
		return lock.Grant{}, fault.New(fault.Internal, "expiry %s", expiry)
	case c.owners[key] != "":
		return lock.Grant{}, nil
	}
	c.tokens++
	c.owners[key] = owner
	return lock.Grant{Held: true, Token: c.tokens}, nil
}

func (c *cabinet) Renew(_ context.Context, key, owner string, _ time.Duration) (lock.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status(key, owner)
}

func (c *cabinet) Unlock(_ context.Context, key, owner string) (lock.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := c.status(key, owner)
	if st == lock.Done {
		delete(c.owners, key)
	}
	return st, err
}

func (c *cabinet) status(key, owner string) (lock.Status, error) {
	switch c.owners[key] {
	case owner:
		return lock.Done, nil
	case "":
		return lock.Missing, nil
	}
	if owner == "stuck" {
		return lock.Failed, errCabinet
	}
	return lock.Foreign, nil
}

func (c *cabinet) Close(context.Context) error { return nil }

func openLocks(tb testing.TB, env component.Env) *lock.Store {
	tb.Helper()
	s, err := lock.New(lock.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (lock.Driver, error) {
		return &cabinet{owners: map[string]string{}}, nil
	}), env, config.Component{Name: env.Name})
	must(tb, err)
	run(tb, s.Instance())
	return s
}

func TestLocks(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	try := func(owner string, want bool, token string) {
		t.Helper()
		var header metadata.MD
		out, err := c.TryLockAlpha1(t.Context(), &rtv1.TryLockRequest{StoreName: "lockstore", ResourceId: "a", LockOwner: owner, ExpiryInSeconds: 60}, grpc.Header(&header))
		if got := strings.Join(header.Get("penstock-fencing-token"), ","); err != nil || out.GetSuccess() != want || got != token {
			t.Errorf("%s: %v, token %q, %v; want %v, token %q", owner, out.GetSuccess(), got, err, want, token)
		}
	}
	unlock := func(owner string, want rtv1.UnlockResponse_Status) {
		t.Helper()
		out, err := c.UnlockAlpha1(t.Context(), &rtv1.UnlockRequest{StoreName: "lockstore", ResourceId: "a", LockOwner: owner})
		if err != nil || out.GetStatus() != want {
			t.Errorf("%s: %v, %v; want %v", owner, out.GetStatus(), err, want)
		}
	}
	unlock("ann", rtv1.UnlockResponse_LOCK_DOES_NOT_EXIST)
	try("ann", true, "1")
	try("bob", false, "")
	unlock("bob", rtv1.UnlockResponse_LOCK_BELONGS_TO_OTHERS)
	unlock("ann", rtv1.UnlockResponse_SUCCESS)
	try("bob", true, "2")
}

func TestLockErrors(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	bare := serve(t, &instance{empty: true}, apigrpc.Options{}).dial(t)
	for name, row := range map[string]struct {
		c    rtv1.DaprClient
		in   *rtv1.TryLockRequest
		code codes.Code
		says string
	}{
		"no store at all": {bare, &rtv1.TryLockRequest{StoreName: "lockstore", ResourceId: "a", LockOwner: "ann", ExpiryInSeconds: 60}, codes.FailedPrecondition, "no lock store is loaded"},
		"unknown store":   {c, &rtv1.TryLockRequest{StoreName: "gone", ResourceId: "a", LockOwner: "ann", ExpiryInSeconds: 60}, codes.InvalidArgument, "gone"},
		"no expiry":       {c, &rtv1.TryLockRequest{StoreName: "lockstore", ResourceId: "a", LockOwner: "ann"}, codes.InvalidArgument, "expiryInSeconds"},
		"expiry negative": {c, &rtv1.TryLockRequest{StoreName: "lockstore", ResourceId: "a", LockOwner: "ann", ExpiryInSeconds: -5}, codes.InvalidArgument, "expiryInSeconds"},
		"no name":         {c, &rtv1.TryLockRequest{StoreName: "lockstore", LockOwner: "ann", ExpiryInSeconds: 60}, codes.InvalidArgument, "resourceId"},
		"no owner":        {c, &rtv1.TryLockRequest{StoreName: "lockstore", ResourceId: "a", ExpiryInSeconds: 60}, codes.InvalidArgument, "lockOwner"},
		"other app's":     {c, &rtv1.TryLockRequest{StoreName: "lockstore", ResourceId: "x||a", LockOwner: "ann", ExpiryInSeconds: 60}, codes.Internal, "must not contain"},
		"store fails":     {c, &rtv1.TryLockRequest{StoreName: "lockstore", ResourceId: "a", LockOwner: "stuck", ExpiryInSeconds: 60}, codes.Internal, "cabinet is stuck"},
	} {
		_, err := row.c.TryLockAlpha1(t.Context(), row.in)
		if status.Code(err) != row.code || !strings.Contains(status.Convert(err).Message(), row.says) {
			t.Errorf("%s: %v; want %v, %q", name, err, row.code, row.says)
		}
	}
	for name, in := range map[string]*rtv1.UnlockRequest{
		"unknown store": {StoreName: "gone", ResourceId: "a", LockOwner: "ann"},
		"no name":       {StoreName: "lockstore", LockOwner: "ann"},
		"no owner":      {StoreName: "lockstore", ResourceId: "a"},
	} {
		if _, err := c.UnlockAlpha1(t.Context(), in); status.Code(err) != codes.InvalidArgument {
			t.Errorf("unlock, %s: %v", name, err)
		}
	}
}
