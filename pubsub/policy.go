package pubsub

import (
	"cmp"
	"context"
	"errors"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// SetPolicy changes what every Publish and BulkPublish runs under; nil is no
// policy. Those under way go on with the old one. Dead letters, which Forward
// writes, are under none: whoever writes them tries until it works.
func (b *Bus) SetPolicy(p *resilience.Policy) { b.policy.Store(p) }

// lost is about a component that is not open. One that is closed does not open
// again.
func (b *Bus) lost(err error) error {
	if b.instance.State().Word == component.Closed {
		return resilience.Final(err)
	}
	return err
}

// bulk is a bulk publish under way: what is left of it, and what became of each
// of its requests.
type bulk struct {
	bus          *Bus
	topic        string
	rs           []PublishRequest
	errs         []error // one for each request; nil before the first try
	now, delayed lot
}

// lot is a batch with the index of each message in the requests.
type lot struct {
	batch []Message
	at    []int
}

func (l *lot) add(m Message, at int) { l.batch, l.at = append(l.batch, m), append(l.at, at) }

// try publishes what is left. Its error says that trying again may help some.
func (k *bulk) try(ctx context.Context) error {
	b := k.bus
	d, err := b.instance.Acquire()
	if err != nil {
		return b.lost(err)
	}
	defer b.instance.Release()
	if k.errs == nil {
		k.begin(features(d))
	}
	var again error
	if len(k.now.batch) > 0 {
		again = k.note(&k.now, d.Publish(ctx, b.prefix+k.topic, k.now.batch))
	}
	if len(k.delayed.batch) > 0 {
		again = cmp.Or(k.note(&k.delayed, b.delayer.Delay(ctx, b.name, b.prefix+k.topic, k.delayed.batch)), again)
	}
	return again
}

// begin makes the messages, once: what is published twice has the same id.
func (k *bulk) begin(f Features) {
	k.errs = make([]error, len(k.rs))
	k.now = lot{make([]Message, 0, len(k.rs)), make([]int, 0, len(k.rs))}
	for i := range k.rs {
		m, err := k.bus.message(&k.rs[i], f)
		switch {
		case err != nil:
			k.errs[i] = err
		case later(&m, f):
			k.delayed.add(m, i)
		default:
			k.now.add(m, i)
		}
	}
}

// note writes down what became of a lot and keeps of it what may be tried again.
func (k *bulk) note(l *lot, err error) error {
	be, partly := errors.AsType[*BatchError](err)
	if err != nil && !partly {
		err = fault.Wrap(k.bus.instance.Hide(err), "publish to %s/%s", k.bus.name, k.topic)
		for _, i := range l.at {
			k.errs[i] = err
		}
		return err
	}
	var again error
	left := 0
	for j, i := range l.at {
		k.errs[i] = nil
		if !partly || j >= len(be.Errs) || be.Errs[j] == nil {
			continue
		}
		k.errs[i] = k.bus.instance.Hide(be.Errs[j])
		if fault.Retriable(be.Errs[j]) {
			again = be.Errs[j]
			l.batch[left], l.at[left] = l.batch[j], i
			left++
		}
	}
	l.batch, l.at = l.batch[:left], l.at[:left]
	return again
}
