package api

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
)

// Lock is one request about a lock.
type Lock struct {
	// Store is the component's name.
	Store string
	// Resource is the name of the lock, Owner who wants or has it.
	Resource, Owner string
	// Seconds is how long the lock is to last; an unlock does not need it.
	Seconds int32
}

func (l *Lock) expiry() time.Duration { return time.Duration(l.Seconds) * time.Second }

// TryLock tries once to get a lock; that somebody has it is no error.
func (a *API) TryLock(ctx context.Context, l *Lock) (lock.Grant, error) {
	s, err := a.lockStore(l, true)
	if err != nil {
		return lock.Grant{}, err
	}
	g, err := s.TryLock(ctx, l.Resource, l.Owner, l.expiry())
	if err != nil {
		return lock.Grant{}, wrap(LockTry, err).on("lock", l.Store)
	}
	return g, nil
}

// RenewLock makes a lock that the owner holds last for the seconds from now.
func (a *API) RenewLock(ctx context.Context, l *Lock) (lock.Status, error) {
	s, err := a.lockStore(l, true)
	if err != nil {
		return lock.Failed, err
	}
	st, err := s.Renew(ctx, l.Resource, l.Owner, l.expiry())
	if err != nil {
		return lock.Failed, wrap(LockRenew, err).on("lock", l.Store)
	}
	return st, nil
}

// Unlock lets go of a lock that the owner holds.
func (a *API) Unlock(ctx context.Context, l *Lock) (lock.Status, error) {
	s, err := a.lockStore(l, false)
	if err != nil {
		return lock.Failed, err
	}
	st, err := s.Unlock(ctx, l.Resource, l.Owner)
	if err != nil {
		return lock.Failed, wrap(LockUnlock, err).on("lock", l.Store)
	}
	return st, nil
}

// lockStore checks a request and finds its store, in the order in which Dapr
// looks at things.
func (a *API) lockStore(l *Lock, timed bool) (*lock.Store, error) {
	switch {
	case timed && l.Seconds <= 0:
		return nil, Errorf(Malformed, "lock in %q: expiryInSeconds is missing or not positive", l.Store).on("lock", l.Store)
	case !a.rt.Configured("lock"):
		return nil, Errorf(LockNotConfigured, "use lock store %q: no lock store is loaded", l.Store).on("lock", l.Store)
	case l.Resource == "":
		return nil, Errorf(Malformed, "lock in %q: resourceId is empty", l.Store).on("lock", l.Store)
	case l.Owner == "":
		return nil, Errorf(Malformed, "lock in %q: lockOwner is empty", l.Store).on("lock", l.Store)
	}
	s, err := a.rt.LockStore(l.Store)
	if err != nil {
		return nil, Errorf(LockNotFound, "use lock store %q: %w", l.Store, err).on("lock", l.Store)
	}
	return s, nil
}

// lockRow is the part of the table about locks.
func lockRow(p Problem) row {
	return map[Problem]row{
		LockNotConfigured: {"ERR_LOCK_STORE_NOT_CONFIGURED", "", 500, grpcFailedPrecondition, fault.NotFound},
		LockNotFound:      {"ERR_LOCK_STORE_NOT_FOUND", "", 400, grpcInvalidArgument, fault.NotFound},
		LockTry:           {"ERR_TRY_LOCK", "", 500, grpcInternal, fault.Internal},
		LockRenew:         {"ERR_RENEW_LOCK", "", 500, grpcInternal, fault.Internal},
		LockUnlock:        {"ERR_UNLOCK", "", 500, grpcInternal, fault.Internal},
	}[p]
}
