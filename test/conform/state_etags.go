package conform

import (
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

func stateETags(t *testing.T, st *stateTest) {
	if !st.f.ETag {
		return
	}
	st.apply(t, st.change("a", `1`))
	first := st.get(t, "a").ETag
	with := func(c state.Change, etag string) state.Change {
		c.ETag = &etag
		return c
	}
	gone := state.Change{Key: st.prefix + "a", Delete: true}
	st.apply(t, with(st.change("a", `2`), first))
	second := st.get(t, "a").ETag
	if first == "" || second == first {
		t.Errorf("ETags %q and %q: want two that differ", first, second)
	}
	st.kind(t, "save with an old ETag", st.d.Apply(t.Context(), []state.Change{with(st.change("a", `3`), first)}), fault.Conflict)
	st.kind(t, "delete with an old ETag", st.d.Apply(t.Context(), []state.Change{with(gone, first)}), fault.Conflict)
	st.kind(t, "save what is not there with an ETag", st.d.Apply(t.Context(), []state.Change{with(st.change("never", `1`), first)}), fault.Conflict)
	err := st.d.Apply(t.Context(), []state.Change{with(st.change("a", `3`), "not an ETag ' of any store")})
	if kind := fault.KindOf(err); err == nil || kind != fault.Invalid && kind != fault.Conflict {
		t.Errorf("save with a malformed ETag: %v", err)
	}
	st.holds(t, "a", `2`)
	st.lacks(t, "never")
	st.apply(t, with(gone, second))
	st.lacks(t, "a")
	st.apply(t, st.change("a", `4`)) // without one any version will do
	st.apply(t, st.change("a", `5`))
	st.holds(t, "a", `5`)
}

// stateNoETags: in a store without them, what asks for one is done all the same,
// as under Dapr; nothing half is.
func stateNoETags(t *testing.T, st *stateTest) {
	if st.f.ETag {
		return
	}
	st.apply(t, st.change("a", `1`))
	if etag := st.get(t, "a").ETag; etag != "" {
		t.Errorf("an item has the ETag %q", etag)
	}
	old := "1"
	for i, c := range []state.Change{{FirstWrite: true}, {ETag: &old}, {ETag: &old, FirstWrite: true}} {
		c.Key, c.Value = st.prefix+"a", strconv.AppendInt(nil, int64(i), 10)
		st.apply(t, c)
		st.holds(t, "a", strconv.Itoa(i))
	}
	st.apply(t, state.Change{Key: st.prefix + "a", Delete: true, ETag: &old})
	st.lacks(t, "a")
}

func stateFirstWrite(t *testing.T, st *stateTest) {
	if !st.f.ETag {
		return
	}
	c := st.change("a", `1`)
	c.FirstWrite = true
	st.apply(t, c)
	st.kind(t, "first write of what is there", st.d.Apply(t.Context(), []state.Change{c}), fault.Conflict)
	st.apply(t, state.Change{Key: c.Key, Delete: true})
	st.apply(t, c)
	etag := st.get(t, "a").ETag
	c.ETag, c.Value = &etag, []byte(`2`)
	st.apply(t, c)
	st.kind(t, "first write with an old ETag", st.d.Apply(t.Context(), []state.Change{c}), fault.Conflict)
	st.holds(t, "a", `2`)

	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			c := st.change("race", jsonNumber(i))
			c.FirstWrite = true
			switch err := st.d.Apply(t.Context(), []state.Change{c}); {
			case err == nil:
				won.Add(1)
			case fault.KindOf(err) != fault.Conflict:
				t.Errorf("first write: %v", err)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d of 16 first writes succeeded, want one", n)
	}
}

// stateRaces: writers that read, add one and save with the ETag they read lose
// no addition.
func stateRaces(t *testing.T, st *stateTest) {
	if !st.f.ETag {
		return
	}
	const writers, each = 6, 10
	st.apply(t, st.change("n", `0`))
	var wg sync.WaitGroup
	deadline := time.Now().Add(time.Minute)
	for range writers {
		wg.Go(func() {
			for done := 0; done < each && time.Now().Before(deadline); {
				items, err := st.d.Get(t.Context(), []string{st.prefix + "n"}, state.Read{Strong: true, Parallel: 1})
				if err != nil || items[0].Err != nil {
					t.Errorf("get: %v, %v", err, items)
					return
				}
				n, _ := strconv.Atoi(string(items[0].Value))
				c := st.change("n", jsonNumber(n+1))
				c.ETag = &items[0].ETag
				switch err := st.d.Apply(t.Context(), []state.Change{c}); {
				case err == nil:
					done++
				case fault.KindOf(err) != fault.Conflict:
					t.Errorf("save: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	st.holds(t, "n", jsonNumber(writers*each))
}

func stateConcurrent(t *testing.T, st *stateTest) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				key := "w" + jsonNumber(i)
				if err := st.d.Apply(t.Context(), []state.Change{st.change(key, jsonNumber(j))}); err != nil {
					t.Errorf("apply: %v", err)
				}
				items, err := st.d.Get(t.Context(), []string{st.prefix + key}, state.Read{Strong: true, Parallel: 1})
				if err != nil || !items[0].Found || string(items[0].Value) != jsonNumber(j) {
					t.Errorf("%s: read %+v, %v after writing %d", key, items, err, j)
				}
			}
		})
	}
	wg.Wait()
}

func stateTTL(t *testing.T, st *stateTest) {
	if !st.f.TTL {
		return
	}
	short, long, kept := st.change("short", `1`), st.change("long", `1`), st.change("kept", `1`)
	short.TTL, long.TTL, kept.TTL = 2*time.Second, time.Hour, 2*time.Second
	st.apply(t, short, long, kept)
	if it := st.get(t, "long"); !it.Expires.IsZero() {
		if left := time.Until(it.Expires); left < 50*time.Minute || left > 70*time.Minute {
			t.Errorf("an item kept for an hour expires in %v", left)
		}
	}
	st.apply(t, st.change("kept", `2`)) // for ever now
	for deadline := time.Now().Add(30 * time.Second); st.get(t, "short").Found; {
		if time.Now().After(deadline) {
			t.Fatal("an item that was to be kept for 2 s is there after 30 s")
		}
		pause(t)
	}
	st.holds(t, "long", `1`)
	st.holds(t, "kept", `2`)
	if it := st.get(t, "kept"); !it.Expires.IsZero() {
		t.Errorf("an item that was saved again without a time to live expires at %v", it.Expires)
	}
	if st.f.ETag { // what is expired is not there for a first write either
		short.FirstWrite = true
		st.apply(t, short)
	}
	if l, ok := st.d.(state.Lister); ok {
		keys, _, err := l.Keys(t.Context(), st.prefix+"long", "", 10)
		if err != nil || len(keys) != 1 {
			t.Errorf("keys: %q, %v", keys, err)
		}
	}
}

// pause waits a little between two looks at a server.
func pause(t *testing.T) {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-t.Context().Done():
	}
}

func stateTransactions(t *testing.T, st *stateTest) {
	tr, ok := st.d.(state.Transactor)
	if !ok || st.f.NoTransactions {
		return
	}
	ctx := t.Context()
	st.apply(t, st.change("a", `1`), st.change("b", `1`))
	gone := func(key string) state.Change { return state.Change{Key: st.prefix + key, Delete: true} }
	if err := tr.Transact(ctx, []state.Change{st.change("a", `2`), gone("b"), st.change("c", `2`), gone("never")}); err != nil {
		t.Fatal(err)
	}
	st.holds(t, "a", `2`)
	st.lacks(t, "b")
	st.holds(t, "c", `2`)
	if err := tr.Transact(ctx, []state.Change{st.change("d", `1`), gone("d"), gone("c"), st.change("c", `3`)}); err != nil {
		t.Fatal(err)
	}
	st.lacks(t, "d")
	st.holds(t, "c", `3`)
	binary := st.change("bytes", "\x00\xff")
	binary.Binary = true
	if err := tr.Transact(ctx, []state.Change{binary}); err != nil || string(st.get(t, "bytes").Value) != "\x00\xff" {
		t.Errorf("bytes came back as %q, %v", st.get(t, "bytes").Value, err)
	}
	if !st.f.ETag {
		return
	}
	etag, old := st.get(t, "a").ETag, st.get(t, "c").ETag
	good, bad := st.change("a", `9`), st.change("c", `9`)
	good.ETag, bad.ETag = &etag, &old
	st.apply(t, st.change("c", `4`))
	st.kind(t, "transaction with an old ETag", tr.Transact(ctx, []state.Change{st.change("e", `1`), good, gone("bytes"), bad}), fault.Conflict)
	st.lacks(t, "e")
	st.holds(t, "a", `2`)
	st.holds(t, "c", `4`)
	if !st.get(t, "bytes").Found {
		t.Error("a failed transaction deleted something")
	}
	if err := tr.Transact(ctx, []state.Change{good}); err != nil {
		t.Error(err)
	}
	st.holds(t, "a", `9`)
}

// stateTransfers moves amounts between accounts in transactions with ETags;
// what is in all of them together never changes.
func stateTransfers(t *testing.T, st *stateTest) {
	tr, ok := st.d.(state.Transactor)
	if !ok || st.f.NoTransactions || !st.f.ETag {
		return
	}
	names := []string{"x", "y", "z"}
	for _, name := range names {
		st.apply(t, st.change(name, `100`))
	}
	var wg sync.WaitGroup
	var moved atomic.Int32
	for i := range 4 {
		wg.Go(func() {
			for j := range 15 {
				from, to := names[(i+j)%3], names[(i+j+1)%3]
				items, err := st.d.Get(t.Context(), []string{st.prefix + from, st.prefix + to}, state.Read{Strong: true, Parallel: 2})
				if err != nil {
					t.Error(err)
					return
				}
				var changes []state.Change
				for k, it := range items {
					var n int
					_ = json.Unmarshal(it.Value, &n)
					c := st.change([]string{from, to}[k], jsonNumber(n+[]int{-1, 1}[k]))
					c.ETag = &items[k].ETag
					changes = append(changes, c)
				}
				switch err := tr.Transact(t.Context(), changes); {
				case err == nil:
					moved.Add(1)
				case fault.KindOf(err) != fault.Conflict:
					t.Errorf("transfer: %v", err)
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, name := range names {
		var n int
		_ = json.Unmarshal(st.get(t, name).Value, &n)
		sum += n
	}
	if sum != 300 || moved.Load() == 0 {
		t.Errorf("%d transfers left %d in the accounts, want 300", moved.Load(), sum)
	}
}
