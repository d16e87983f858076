package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

const (
	// step is how many changes, each by itself, one run of the script does: the
	// server does nothing else meanwhile.
	step = 100
	// replicaTime is how long replicas may take over a strong write.
	replicaTime = time.Second
)

var (
	errETag  = fault.New(fault.Conflict, "the item has another ETag, or is not there")
	errFirst = fault.New(fault.Conflict, "the item is there already")
	errNoTag = fault.New(fault.Invalid, "read ETag: it is not one of this store's")
)

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	errs := make([]error, len(changes))
	for _, group := range s.groups(changes, errs) {
		unmet, err := s.run(ctx, "each", changes, group)
		for _, i := range group {
			errs[i] = err
		}
		for _, i := range unmet {
			errs[i] = why(&changes[i])
		}
	}
	return state.Batch(errs)
}

// groups tells which changes go together: in a cluster those of one slot. What
// cannot be done at all is in errs, and in no group.
func (s *store) groups(changes []state.Change, errs []error) (out [][]int) {
	at := map[uint16]int{} // group of a slot
	for i := range changes {
		if c := &changes[i]; c.ETag != nil && !version(*c.ETag) {
			errs[i] = errNoTag
			continue
		}
		slot := uint16(0)
		if s.cluster {
			slot = s.slot(changes[i].Key)
		}
		g, ok := at[slot]
		if !ok || len(out[g]) == step {
			g = len(out)
			at[slot], out = g, append(out, nil)
		}
		out[g] = append(out[g], i)
	}
	return out
}

func (s *store) slot(key string) uint16 {
	c := s.c.B().Get().Key(key).Build()
	return c.Slot()
}

// version tells whether an ETag may be one.
func version(etag string) bool {
	_, err := strconv.ParseInt(etag, 10, 64)
	return err == nil
}

// Transact implements state.Transactor.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	group := make([]int, len(changes))
	for i := range changes {
		group[i] = i
		if c := &changes[i]; c.ETag != nil && !version(*c.ETag) {
			return errNoTag
		}
		if s.cluster && s.slot(changes[i].Key) != s.slot(changes[0].Key) {
			return fault.New(fault.Invalid, "the keys of a transaction in a cluster must be in one slot; put the same word in braces into all: %q", "{order-1}")
		}
	}
	unmet, err := s.run(ctx, "all", changes, group)
	if err == nil && len(unmet) > 0 {
		err = why(&changes[unmet[0]])
	}
	return err
}

// why is the error of a change whose condition did not hold.
func why(c *state.Change) error {
	if c.ETag != nil {
		return errETag
	}
	return errFirst
}

// run has the server carry out the changes of a group and returns those whose
// condition did not hold.
func (s *store) run(ctx context.Context, mode string, changes []state.Change, group []int) (unmet []int, err error) {
	keys, args, strong := make([]string, 0, len(group)), make([]string, 1, 1+5*len(group)), false
	args[0] = mode
	for _, i := range group {
		c := &changes[i]
		keys, args, strong = append(keys, c.Key), s.args(args, c), strong || c.Strong
	}
	var r rueidis.RedisResult
	if strong {
		r, err = s.strongly(ctx, keys, args)
	} else {
		r = s.script.Exec(ctx, s.c.Client, keys, args)
	}
	numbers, rerr := r.AsIntSlice()
	switch {
	case rerr != nil:
		return nil, client.Classify(rerr)
	case err != nil:
		return nil, err
	}
	for _, n := range numbers {
		unmet = append(unmet, group[n-1])
	}
	return unmet, nil
}

// args appends what the script wants to know about a change.
func (s *store) args(args []string, c *state.Change) []string {
	do, cond, etag, value, ttl := "save", "", "", rueidis.BinaryString(c.Value), c.TTL
	switch {
	case c.ETag != nil:
		cond, etag = "etag", *c.ETag
	case c.FirstWrite && !c.Delete:
		cond = "first"
	}
	if c.Delete {
		do, value = "delete", ""
	}
	if ttl == 0 {
		ttl = s.ttl
	}
	return append(args, do, cond, etag, strconv.FormatInt(int64(max(state.Whole(ttl), 0)/time.Second), 10), value)
}

// strongly runs the script and waits until the replicas have what it did. WAIT
// is about the connection that it comes through, and stops it, so this takes one
// of its own.
func (s *store) strongly(ctx context.Context, keys, args []string) (rueidis.RedisResult, error) {
	d, release := s.c.Dedicate()
	defer release()
	r := d.DoMulti(ctx, d.B().Eval().Script(script).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build(),
		d.B().Info().Section("replication").Build())
	if r[0].Error() != nil {
		return r[0], nil
	}
	n, err := replicas(r[1])
	if n == 0 || err != nil {
		return r[0], err
	}
	got, err := d.Do(ctx, d.B().Wait().Numreplicas(n).Timeout(replicaTime.Milliseconds()).Build()).AsInt64()
	switch {
	case err != nil:
		return r[0], client.Classify(err)
	case got < n:
		return r[0], fault.New(fault.Timeout, "the change is done, and %d of %d replicas did not confirm it within %v", n-got, n, replicaTime)
	}
	return r[0], nil
}

// replicas reads how many follow the server. One that cannot say has none.
func replicas(r rueidis.RedisResult) (int64, error) {
	text, err := r.ToString()
	if err = client.Classify(err); err != nil {
		if fault.KindOf(err) == fault.Invalid {
			return 0, nil
		}
		return 0, err
	}
	_, rest, _ := strings.Cut(text, "connected_slaves:")
	word, _, _ := strings.Cut(rest, "\r")
	n, _ := strconv.ParseInt(word, 10, 64)
	return n, nil
}
