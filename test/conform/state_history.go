package conform

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Bounds of a history: enough callers on few enough keys to meet, and few enough
// calls for the checker.
const (
	historyKeys    = 3
	historyCallers = 4
	historyCalls   = 80 // of each caller
	historyTime    = 2 * time.Second
	historyPatient = 30 * time.Second // for the checker
)

// historyState is what the keys hold: a number that is saved once only; 0 is
// nothing.
type historyState [historyKeys]int32

// historyStep is one change: of a key, to a value (0: delete), under a condition.
type historyStep struct {
	key, value int32
	// cond is "" for any, "first", or "etag": the key holds the value that was
	// read with that ETag.
	cond string
	held int32
}

// historyCall is a read of a key when it has no steps.
type historyCall struct {
	key   int32
	steps []historyStep
}

// historyAnswer is what a read found, or whether the conditions of a change held.
type historyAnswer struct {
	value int32
	done  bool
}

// stateModel is a store that does one call after the other.
func stateModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return historyState{} },
		Step: func(s, in, out any) (bool, any) {
			now, call, answer := s.(historyState), in.(historyCall), out.(historyAnswer)
			if call.steps == nil {
				return answer.value == now[call.key], now
			}
			next := now
			for _, step := range call.steps {
				at := next[step.key]
				if step.cond == "first" && at != 0 || step.cond == "etag" && at != step.held {
					return !answer.done, now
				}
				next[step.key] = step.value
			}
			return answer.done, next
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
	}
}

// stateHistory has callers read, save and delete the same few keys, with ETags,
// first writes and transactions, and looks for an order in which a store that
// does one call after the other would have answered the same.
func stateHistory(t *testing.T, st *stateTest) {
	if !st.f.ETag {
		return
	}
	tr, _ := st.d.(state.Transactor)
	if st.f.NoTransactions || st.f.MaxChanges == 1 {
		tr = nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	callers := make([]*historyCaller, historyCallers)
	var wg sync.WaitGroup
	for i := range callers {
		c := &historyCaller{
			stateTest: st, tr: tr, ctx: ctx, id: i, begin: begin, rand: rand.New(rand.NewPCG(uint64(i), uint64(begin.UnixNano()))),
			tags: map[int32]historyTag{},
		}
		callers[i] = c
		wg.Go(func() { c.run(t) })
	}
	wg.Wait()
	var all []porcupine.Operation
	for _, c := range callers {
		all = append(all, c.ops...)
	}
	if len(all) < historyCallers {
		t.Fatalf("only %d calls", len(all))
	}
	result, _ := porcupine.CheckOperationsVerbose(stateModel(), all, historyPatient)
	switch result {
	case porcupine.Illegal:
		t.Errorf("no order of these %d calls explains what they found:", len(all))
		for _, op := range all {
			t.Logf("%d: %9d..%9d %+v -> %+v", op.ClientId, op.Call, op.Return, op.Input, op.Output)
		}
	case porcupine.Unknown:
		t.Logf("the checker did not get through %d calls in %v", len(all), historyPatient)
	}
}

// historyTag is an ETag and the value that was read with it.
type historyTag struct {
	etag string
	held int32
}

type historyCaller struct {
	*stateTest
	tr    state.Transactor // nil: none
	ctx   context.Context
	id    int
	begin time.Time
	rand  *rand.Rand
	tags  map[int32]historyTag // by key, of the last read
	ops   []porcupine.Operation
}

func (c *historyCaller) run(t *testing.T) {
	for n := range historyCalls {
		if time.Since(c.begin) > historyTime || t.Failed() {
			return
		}
		value := int32(n*historyCallers+c.id)*2 + 1 // and one more: no other call has them
		var call historyCall
		switch k := c.rand.IntN(10); {
		case k < 4:
			call.key = c.rand.Int32N(historyKeys)
		case k < 9 || c.tr == nil:
			call.steps = []historyStep{c.step(value)}
		default:
			call.steps = []historyStep{c.step(value), c.step(value + 1)}
		}
		start := time.Since(c.begin)
		answer, err := c.do(call)
		if err != nil {
			t.Errorf("%+v: %v", call, err)
			return
		}
		c.ops = append(c.ops, porcupine.Operation{
			ClientId: c.id, Input: call, Output: answer, Call: int64(start), Return: int64(time.Since(c.begin)),
		})
	}
}

func (c *historyCaller) step(value int32) historyStep {
	s := historyStep{key: c.rand.Int32N(historyKeys), value: value}
	if c.rand.IntN(4) == 0 && !c.ReusesETags {
		s.value = 0
	}
	tag, known := c.tags[s.key]
	switch k := c.rand.IntN(6); {
	case k < 3 && known:
		s.cond, s.held = "etag", tag.held
	case k == 3 && s.value != 0:
		s.cond = "first"
	}
	return s
}

func (c *historyCaller) do(call historyCall) (historyAnswer, error) {
	if call.steps == nil {
		return c.read(call.key)
	}
	changes := make([]state.Change, len(call.steps))
	for i, s := range call.steps {
		changes[i] = c.change("h"+strconv.Itoa(int(s.key)), strconv.Itoa(int(s.value)))
		changes[i].Delete, changes[i].FirstWrite = s.value == 0, s.cond == "first"
		if s.cond == "etag" {
			changes[i].ETag = new(c.tags[s.key].etag)
		}
	}
	var err error
	if len(changes) == 1 {
		err = c.d.Apply(c.ctx, changes)
	} else {
		err = c.tr.Transact(c.ctx, changes)
	}
	if err != nil && fault.KindOf(err) == fault.Conflict {
		return historyAnswer{}, nil
	}
	return historyAnswer{done: true}, err
}

func (c *historyCaller) read(key int32) (historyAnswer, error) {
	items, err := c.d.Get(c.ctx, []string{c.prefix + "h" + strconv.Itoa(int(key))}, state.Read{Strong: true, Parallel: 1})
	if err == nil {
		err = items[0].Err
	}
	if err != nil {
		return historyAnswer{}, err
	}
	delete(c.tags, key)
	if !items[0].Found {
		return historyAnswer{}, nil
	}
	n, err := strconv.Atoi(string(items[0].Value))
	c.tags[key] = historyTag{items[0].ETag, int32(n)}
	return historyAnswer{value: int32(n)}, err
}
