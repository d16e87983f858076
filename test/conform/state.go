package conform

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// StateSetup says how to get at a state store.
type StateSetup struct {
	// Options makes working options. Those of one call lead to the same data
	// as long as the test runs.
	Options func(t *testing.T) map[string]string
	// Wrong are options that Check must refuse, as in [BindingSetup].
	Wrong map[string]map[string]string
	// Version of the type, where it has several; empty is the usual one.
	Version string
	// Forgets: what is saved is gone when the component closes.
	Forgets bool
	// ReusesETags: an item that was deleted and saved again may have an ETag that
	// it had before, because its version counts from the beginning. A change may
	// then meet another item than the one that was read.
	ReusesETags bool
	// MaxValue is the largest value that the suite saves, in bytes; 512 KiB
	// when 0.
	MaxValue int
	// MaxKey is the longest key, in bytes, prefix included; 300 when 0.
	MaxKey int
}

// stateTest is one case: a driver and what makes its keys its own.
type stateTest struct {
	StateSetup
	d      state.Driver
	f      state.Features
	prefix string
	reopen func(t *testing.T) state.Driver // closes d first
}

// State runs the suite of state stores. What a store does not promise
// ([state.Features], [state.Transactor], [state.Lister]) is not asked for.
func State(t *testing.T, def component.Definition, setup StateSetup) {
	t.Helper()
	definition(t, def, setup.Options, setup.Wrong)
	for name, run := range map[string]func(*testing.T, *stateTest){
		"round trip": stateRoundTrip, "keys": stateKeys, "many": stateMany, "delete": stateDelete,
		"batch": stateBatch, "durable": stateDurable, "cancelled": stateCancelled, "concurrent": stateConcurrent,
		"etags": stateETags, "first write": stateFirstWrite, "no etags": stateNoETags, "etag races": stateRaces,
		"time to live": stateTTL, "transactions": stateTransactions, "transaction races": stateTransfers,
		"key lists": stateLists, "history": stateHistory,
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			options := setup.Options(t)
			st := &stateTest{StateSetup: setup, prefix: Unique(t) + "||"}
			st.reopen = func(t *testing.T) state.Driver {
				if st.d != nil {
					shut(t, st.d)
				}
				env := environment(t)
				env.Version = setup.Version
				d, ok := opened(t, def, env, options).(state.Driver)
				if !ok {
					t.Fatal("it does not implement state.Driver")
				}
				if f, ok := d.(state.Featured); ok {
					st.f = f.Features()
				}
				st.d = d
				return d
			}
			st.reopen(t)
			run(t, st)
			shut(t, st.d)
			shut(t, st.d)
		})
	}
}

// get reads one item, which must not fail.
func (st *stateTest) get(t *testing.T, key string) state.Item {
	t.Helper()
	items, err := st.d.Get(t.Context(), []string{st.prefix + key}, state.Read{Strong: true, Parallel: 10})
	if err != nil || len(items) != 1 || items[0].Err != nil {
		t.Fatalf("get %q: %d items, %v, %+v", key, len(items), err, items)
	}
	return items[0]
}

// change is one with the case's own key.
func (st *stateTest) change(key, value string) state.Change {
	return state.Change{Key: st.prefix + key, Value: []byte(value), Strong: true}
}

// apply carries out changes, which must not fail.
func (st *stateTest) apply(t *testing.T, changes ...state.Change) {
	t.Helper()
	if err := st.d.Apply(t.Context(), changes); err != nil {
		t.Fatalf("apply %d changes: %v", len(changes), err)
	}
}

// kind wants an error of a kind.
func (st *stateTest) kind(t *testing.T, what string, err error, want fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != want {
		t.Errorf("%s: got %v, want an error of kind %v", what, err, want)
	}
}

// holds wants an item to be there with a JSON value.
func (st *stateTest) holds(t *testing.T, key, want string) {
	t.Helper()
	it := st.get(t, key)
	if !it.Found || !sameJSON(it.Value, []byte(want)) {
		t.Errorf("%q holds %q (found %v), want %s", key, it.Value, it.Found, want)
	}
}

// lacks wants no item under key.
func (st *stateTest) lacks(t *testing.T, key string) {
	t.Helper()
	if it := st.get(t, key); it.Found {
		t.Errorf("%q is still there: %q", key, it.Value)
	}
}

// sameJSON tells whether two texts are the same JSON value: stores with a JSON
// type write it in their own way.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return cmp.Equal(x, y)
}

func stateRoundTrip(t *testing.T, st *stateTest) {
	for name, value := range map[string]string{
		"object": `{"a":1,"b":{"c":[true,null,"x"]}}`, "text": `"plain \"quoted\" \u00e9 ✓"`, "empty text": `""`,
		"number": `-12.5e3`, "null": `null`, "list": `[1,2,3]`, "markup": `"<a href='x'>&amp;</a>"`,
	} {
		st.apply(t, st.change(name, value))
		st.holds(t, name, value)
		st.apply(t, st.change(name, `{"second":true}`))
		st.holds(t, name, `{"second":true}`)
	}
	size := st.MaxValue
	if size == 0 {
		size = 512 << 10
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := make([]byte, size)
	for i := range large {
		large[i] = byte(i * 31)
	}
	for name, value := range map[string][]byte{"bytes": all, "like json": []byte(`{"a": 1}`), "text bytes": []byte("plain"), "no bytes": {}, "large": large} {
		c := st.change(name, string(value))
		c.Binary = true
		st.apply(t, c)
		if it := st.get(t, name); !it.Found || string(it.Value) != string(value) {
			t.Errorf("%s: %d bytes came back as %d (found %v)", name, len(value), len(it.Value), it.Found)
		}
	}
	st.lacks(t, "never saved")
}

func stateKeys(t *testing.T, st *stateTest) {
	longest := st.MaxKey
	if longest == 0 {
		longest = 300
	}
	long := make([]byte, longest-len(st.prefix))
	for i := range long {
		long[i] = 'a' + byte(i%26)
	}
	keys := []string{
		"a", "A", "with space", "a/b", "/", "a'b", `a"b`, "'; DROP TABLE state; --", "100%", "under_score", "*", "[x]", "{y}",
		`back\slash`, "é✓", "a:b", "a|b", "tab\tkey", string(long),
	}
	for i, key := range keys {
		st.apply(t, st.change(key, jsonNumber(i)))
	}
	for i, key := range keys {
		st.holds(t, key, jsonNumber(i))
	}
}

func jsonNumber(i int) string {
	b, _ := json.Marshal(i)
	return string(b)
}

func stateMany(t *testing.T, st *stateTest) {
	var changes []state.Change
	var keys []string
	for i := range 100 {
		key := "k" + jsonNumber(i)
		if i%3 != 0 {
			changes = append(changes, st.change(key, jsonNumber(i)))
		}
		keys = append(keys, st.prefix+key)
	}
	st.apply(t, changes...)
	keys = append(keys, keys[1], keys[0]) // again
	items, err := st.d.Get(t.Context(), keys, state.Read{Strong: true, Parallel: 10})
	if err != nil || len(items) != len(keys) {
		t.Fatalf("get: %d items for %d keys, %v", len(items), len(keys), err)
	}
	for i, it := range items {
		n := i
		if i >= 100 {
			n = 101 - i
		}
		switch {
		case it.Err != nil:
			t.Errorf("item %d: %v", i, it.Err)
		case n%3 == 0 && it.Found:
			t.Errorf("item %d is found, and was never saved", i)
		case n%3 != 0 && (!it.Found || !sameJSON(it.Value, []byte(jsonNumber(n)))):
			t.Errorf("item %d: %q (found %v), want %d", i, it.Value, it.Found, n)
		case it.Found && st.f.ETag && it.ETag == "":
			t.Errorf("item %d has no ETag", i)
		}
	}
	if items, err := st.d.Get(t.Context(), nil, state.Read{Parallel: 1}); err != nil || len(items) != 0 {
		t.Errorf("get of no keys: %v, %v", items, err)
	}
}

func stateDelete(t *testing.T, st *stateTest) {
	st.apply(t, st.change("a", `1`), st.change("b", `2`))
	st.apply(t, state.Change{Key: st.prefix + "a", Delete: true})
	st.lacks(t, "a")
	st.holds(t, "b", `2`)
	st.apply(t, state.Change{Key: st.prefix + "a", Delete: true}, state.Change{Key: st.prefix + "never", Delete: true})
	// Changes of one key are carried out in their order.
	st.apply(t, st.change("c", `1`), state.Change{Key: st.prefix + "c", Delete: true}, st.change("d", `1`), st.change("d", `2`))
	st.lacks(t, "c")
	st.holds(t, "d", `2`)
}

// stateBatch: of changes that cannot all be done, the others are.
func stateBatch(t *testing.T, st *stateTest) {
	if !st.f.ETag {
		return
	}
	st.apply(t, st.change("there", `1`))
	taken := st.change("there", `2`)
	taken.FirstWrite = true
	err := st.d.Apply(t.Context(), []state.Change{st.change("x", `1`), taken, st.change("y", `1`)})
	be, ok := err.(*state.BatchError)
	if !ok || len(be.Errs) != 3 || be.Errs[0] != nil || be.Errs[2] != nil {
		t.Fatalf("got %v (%T), want a *state.BatchError about the second of three", err, err)
	}
	st.kind(t, "first write", be.Errs[1], fault.Conflict)
	st.holds(t, "x", `1`)
	st.holds(t, "y", `1`)
	st.holds(t, "there", `1`)
}

func stateDurable(t *testing.T, st *stateTest) {
	st.apply(t, st.change("kept", `{"a":1}`))
	before := st.get(t, "kept")
	st.reopen(t)
	if st.Forgets {
		st.lacks(t, "kept")
		return
	}
	st.holds(t, "kept", `{"a":1}`)
	if after := st.get(t, "kept"); after.ETag != before.ETag {
		t.Errorf("the ETag %q became %q", before.ETag, after.ETag)
	}
}

func stateCancelled(t *testing.T, st *stateTest) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = st.d.Get(ctx, []string{st.prefix + "a"}, state.Read{Parallel: 1})
		_ = st.d.Apply(ctx, []state.Change{st.change("a", `1`)})
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("a call whose context has ended does not return")
	}
	st.apply(t, st.change("a", `2`)) // and the store still works
	st.holds(t, "a", `2`)
}

// stateLists: every key once, whatever the page size.
func stateLists(t *testing.T, st *stateTest) {
	l, ok := st.d.(state.Lister)
	if !ok {
		return
	}
	want := map[string]bool{}
	for i := range 25 {
		key := "list%_*" + jsonNumber(i)
		st.apply(t, st.change(key, `1`))
		want[st.prefix+key] = true
	}
	st.apply(t, st.change("listXYZ", `1`), st.change("other", `1`), st.change("list%_*gone", `1`))
	st.apply(t, state.Change{Key: st.prefix + "list%_*gone", Delete: true})
	got, token := map[string]bool{}, ""
	for range 100 {
		keys, next, err := l.Keys(t.Context(), st.prefix+"list%_*", token, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if got[key] {
				t.Errorf("%q is listed twice", key)
			}
			got[key] = true
		}
		if token = next; token == "" {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got)\n%s", diff)
	}
}
