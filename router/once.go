package router

import (
	"context"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Once makes the deliveries of a route idempotent: an event whose key was
// delivered before is acknowledged and not delivered again.
//
// The key is claimed before the first target is served, confirmed when the last
// one has the event and before the source hears of it, and released in every
// other case: an event that was dead-lettered, dropped, given back or left may
// come again and is delivered then.
type Once struct {
	// Key returns what tells events apart; an event without a key is delivered
	// however often it comes. It is called after the steps.
	Key    func(e *cloudevents.Event) string
	Claims Claims
}

// Claims keeps the keys of a [Once]. Its methods are called from many
// goroutines.
type Claims interface {
	// Claim takes key for one delivery, unless it is held or was delivered.
	Claim(ctx context.Context, key string) (ClaimState, error)
	// Confirm notes that the key was delivered and returns when that is
	// durable. After an error the claim is still held.
	Confirm(ctx context.Context, key string) error
	// Release gives up a claim that was not confirmed. It does not block.
	Release(key string)
}

// ClaimState is the answer to a claim.
type ClaimState uint8

// The answers. The zero value is Held, so that an answer nobody gave delivers
// nothing twice.
const (
	// Held: another delivery has the key at the moment.
	Held ClaimState = iota
	// Claimed: the key is taken for this delivery.
	Claimed
	// Delivered: the key was confirmed before.
	Delivered
)

// claim is what a passage remembers of its key.
type claim struct {
	claims   Claims // nil unless the key is held
	key      string
	served   bool // all targets have the event, what is left to do is to confirm
	failures int  // of confirming
}

// claim takes the delivery's key, unless it has it already. It returns what the
// round ends with when the event is not to be delivered now.
func (in *incarnation) claim(ctx context.Context, p *passage) *result {
	once := in.route.Once
	if once == nil || p.claim.claims != nil || p.d.Event == nil {
		return nil
	}
	key := once.Key(p.d.Event)
	if key == "" {
		return nil
	}
	state, err := once.Claims.Claim(ctx, key)
	switch {
	case err != nil:
		return &result{cloudevents.Retried(fault.Wrap(err, "claim key %.64q", key), fault.RetryAfter(err)), refused}
	case state == Claimed:
		p.claim.claims, p.claim.key = once.Claims, key
		return nil
	case state == Delivered:
		in.flow.tally.duplicates.Add(1)
		o := cloudevents.Acked()
		o.Reason = "delivered before"
		return &result{Outcome: o}
	default:
		err := fault.New(fault.Unavailable, "claim key %.64q: another delivery of it is under way", key)
		return &result{cloudevents.Retried(err, 0), refused}
	}
}

// settleServed acks a delivery that all targets have. One with a key is noted
// first, so that no duplicate gets through; as long as it cannot be noted, that
// is what the delivery waits for.
func (in *incarnation) settleServed(ctx context.Context, p *passage, o cloudevents.Outcome) decision {
	if p.claim.claims == nil {
		return tell(o)
	}
	p.claim.served = true
	err := guard(func() error { return p.claim.claims.Confirm(ctx, p.claim.key) })
	if err == nil {
		p.claim.claims = nil
		return tell(o)
	}
	if in.flow.cutting.Load() {
		return leave(stoppingReason)
	}
	p.claim.failures++
	err = fault.Wrap(err, "note that the event was delivered")
	wait := in.route.Redelivery.Delay(p.claim.failures, fault.RetryAfter(err))
	return in.waitInLane(p, result{Outcome: cloudevents.Retried(err, wait)}, wait)
}

// unclaim gives up what the passage still holds; it is about to be told.
func (p *passage) unclaim() {
	if p.claim.claims != nil {
		p.claim.claims.Release(p.claim.key)
		p.claim.claims = nil
	}
}
