package lists

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// fetch hands out what was left, then what there is, until something breaks.
func (r *Reader) fetch(ctx context.Context, emit cloudevents.EmitFunc) error {
	r.mu.Lock()
	aside := r.aside
	r.aside = nil
	r.mu.Unlock()
	if err := r.hand(ctx, aside, emit); err != nil {
		return err
	}
	for ctx.Err() == nil {
		batch, next, err := r.more(ctx)
		if err != nil {
			return err
		}
		if err := r.hand(ctx, batch, emit); err != nil {
			return err
		}
		if len(batch) == 0 {
			if err := r.await(ctx, next); err != nil {
				return err
			}
		}
	}
	return nil
}

// more takes entries. When the answer was lost, what it held is given back first.
func (r *Reader) more(ctx context.Context) ([]*held, time.Duration, error) {
	r.taking.Lock()
	defer r.taking.Unlock()
	if err := r.missed(ctx); err != nil {
		return nil, 0, err
	}
	k, pop := r.keys, "LPOP"
	if r.o.Right {
		pop = "RPOP"
	}
	r.mu.Lock()
	r.check, r.shown = true, true // until the answer is here
	r.mu.Unlock()
	answer, err := r.take.Exec(ctx, r.o.Client.Client,
		[]string{r.o.List, k.moved, k.seq, k.body, k.tries, k.free, k.names, k.own + r.name, k.alive + r.name},
		[]string{r.name, ms(lifetime), strconv.Itoa(r.o.Count), strconv.Itoa(takeBytes), pop}).AsStrSlice()
	if err != nil {
		return nil, 0, fault.Wrap(redis.Classify(err), "take from list %q", r.o.List)
	}
	next := blockFor
	if wait, err := strconv.ParseInt(answer[0], 10, 64); err == nil && wait >= 0 {
		next = min(next, time.Duration(wait)*time.Millisecond)
	}
	batch := make([]*held, 0, len(answer)/3)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check = false
	for rest := answer[1:]; len(rest) >= 3; rest = rest[3:] {
		h := &held{r: r, id: rest[0]}
		h.Attempt, _ = strconv.Atoi(rest[1])
		r.o.Decode(&h.Delivery, h.id, redis.Bytes(rest[2]))
		h.Settle = h.settle
		r.under[h.id] = h
		batch = append(batch, h)
	}
	return batch, next, nil
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// missed gives back entries that are ours and never reached us; the caller holds
// taking.
func (r *Reader) missed(ctx context.Context) error {
	r.mu.Lock()
	check := r.check
	r.mu.Unlock()
	if !check {
		return nil
	}
	c := r.o.Client
	own := r.keys.own + r.name
	ids, err := c.Do(ctx, c.B().Smembers().Key(own).Build()).AsStrSlice()
	if err == nil {
		var lost []string
		r.mu.Lock()
		for _, id := range ids {
			if r.under[id] == nil {
				lost = append(lost, id)
			}
		}
		r.mu.Unlock()
		if len(lost) > 0 {
			err = c.Do(ctx, c.B().Eval().Script(giveBack).Numkeys(2).Key(r.keys.free, own).Arg(lost...).Build()).Error()
		}
	}
	if err != nil {
		return fault.Wrap(redis.Classify(err), "look for entries of list %q", r.o.List)
	}
	r.mu.Lock()
	r.check = false
	r.mu.Unlock()
	return nil
}

// hand gives deliveries to emit; those not taken are left.
func (r *Reader) hand(ctx context.Context, batch []*held, emit cloudevents.EmitFunc) error {
	for i, h := range batch {
		err := ctx.Err()
		if err == nil {
			err = emit(ctx, &h.Delivery)
		}
		if err == nil {
			continue
		}
		r.mu.Lock()
		r.aside = append(r.aside, batch[i:]...)
		r.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		return fault.Wrap(err, "hand over entry")
	}
	return nil
}

// await waits for an entry, which it moves to where the next take finds it first,
// whoever that is.
func (r *Reader) await(ctx context.Context, most time.Duration) error {
	if most <= 0 {
		return nil
	}
	from := "LEFT"
	if r.o.Right {
		from = "RIGHT"
	}
	c := r.o.Client
	cmd := c.B().Arbitrary("BLMOVE").Keys(r.o.List, r.keys.moved).Args(from, "RIGHT", strconv.FormatFloat(most.Seconds(), 'f', 3, 64)).Blocking()
	blocking, done := c.Blocking(ctx, most)
	defer done()
	err := c.Do(blocking, cmd.UnblockOnCancel()).Error()
	if err == nil || rueidis.IsRedisNil(err) || ctx.Err() != nil {
		return nil
	}
	return fault.Wrap(redis.Classify(err), "wait for list %q", r.o.List)
}

// settle is the delivery's Settle.
func (h *held) settle(o cloudevents.Outcome) {
	h.settled.Do(func() {
		r := h.r
		switch o.Verdict {
		case cloudevents.Ack, cloudevents.Drop:
			r.acks.Add(note{id: h.id, wait: -1}, nil)
		case cloudevents.Retry:
			after := o.After
			if after <= 0 {
				after = min(minBackoff<<min(max(h.Attempt-1, 0), 10), maxBackoff)
			}
			r.acks.Add(note{id: h.id, attempt: h.Attempt + 1, wait: max(after, time.Millisecond)}, nil)
		default:
			next := &held{Delivery: h.Delivery, r: r, id: h.id}
			next.Settle = next.settle
			r.mu.Lock()
			r.under[h.id] = next
			r.aside = append(r.aside, next)
			r.mu.Unlock()
		}
	})
}

// write sends notes in one script. What fails is kept for the next beat.
func (r *Reader) write(ctx context.Context, notes []note) []error {
	args := make([]string, 0, 3*len(notes))
	for _, n := range notes {
		wait := "-1"
		if n.wait >= 0 {
			wait = ms(n.wait)
		}
		args = append(args, n.id, strconv.Itoa(n.attempt), wait)
	}
	k := r.keys
	err := r.settle.Exec(ctx, r.o.Client.Client, []string{k.body, k.tries, k.free, k.own + r.name}, args).Error()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed = append(r.failed, notes...)
		return nil
	}
	for _, n := range notes {
		delete(r.under, n.id)
	}
	return nil
}
