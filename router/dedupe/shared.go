package dedupe

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/state"
)

// ClaimTime is how long a claim of an event lasts in a state store: that of a
// killed process holds the event back for as long.
const ClaimTime = 2 * time.Minute

// delivered is the value of a key that was confirmed; that of a claim is its
// owner.
const delivered = "delivered"

// shared are the keys of one route in a state store, where all replicas of the
// app see them.
type shared struct {
	find  func() (*state.Store, error)
	route string
	ttl   time.Duration
	owner string

	mu   sync.Mutex
	held map[digest]struct{} // by this process
}

// InStore returns the keys of one route, kept in the state store that find
// returns; it must have versions and time to live. Replicas that use the same
// store see each other's deliveries and claims: an event that another one has
// under way is Held.
func InStore(find func() (*state.Store, error), route string, ttl time.Duration) router.Claims {
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	return &shared{find: find, route: route, ttl: ttl, owner: rand.Text(), held: map[digest]struct{}{}}
}

// key is a name in the store for any key of an event.
func (d digest) key() string { return "dedupe-" + hex.EncodeToString(d[:]) }

// Claim implements router.Claims.
func (c *shared) Claim(ctx context.Context, key string) (router.ClaimState, error) {
	d := digestOf(c.route, key)
	c.mu.Lock()
	_, held := c.held[d]
	if !held {
		c.held[d] = struct{}{}
	}
	c.mu.Unlock()
	if held {
		return router.Held, nil
	}
	st, err := c.claim(ctx, d)
	if st != router.Claimed {
		c.release(d)
	}
	return st, fault.Wrap(err, "look up delivered event")
}

// claim writes the claim, unless there is something.
func (c *shared) claim(ctx context.Context, d digest) (router.ClaimState, error) {
	s, err := c.find()
	if err != nil {
		return router.Held, err
	}
	if f, err := s.Features(); err != nil {
		return router.Held, err
	} else if !f.ETag || !f.TTL {
		return router.Held, fault.New(fault.Invalid, "the state store %s has no versions, or no time to live", s.Name())
	}
	change := state.Change{Key: d.key(), Value: []byte(c.owner), Binary: true, FirstWrite: true, Strong: true, TTL: ClaimTime}
	err = s.Apply(ctx, []state.Change{change})
	if err == nil {
		return router.Claimed, nil
	}
	if fault.KindOf(err) != fault.Conflict {
		return router.Held, err
	}
	it, err := s.Get(ctx, d.key(), state.Read{Strong: true})
	switch {
	case err != nil || !it.Found: // it went meanwhile: the next try finds out
		return router.Held, err
	case string(it.Value) == delivered:
		return router.Delivered, nil
	case string(it.Value) != c.owner:
		return router.Held, nil
	}
	// It is our own, of a delivery that was released: it is taken on.
	change.FirstWrite, change.ETag = false, &it.ETag
	if err := s.Apply(ctx, []state.Change{change}); err != nil {
		return router.Held, err
	}
	return router.Claimed, nil
}

// Confirm implements router.Claims.
func (c *shared) Confirm(ctx context.Context, key string) error {
	d := digestOf(c.route, key)
	s, err := c.find()
	if err == nil {
		err = s.Apply(ctx, []state.Change{{Key: d.key(), Value: []byte(delivered), Binary: true, Strong: true, TTL: c.ttl}})
	}
	if err != nil {
		return fault.Wrap(err, "write delivered event")
	}
	c.release(d)
	return nil
}

// Release implements router.Claims. The claim stays in the store for its time,
// and only this process may take it on.
func (c *shared) Release(key string) { c.release(digestOf(c.route, key)) }

func (c *shared) release(d digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, d)
}
