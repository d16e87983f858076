package state

import (
	"context"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
)

func TestFinal(t *testing.T) {
	t.Parallel()
	etag := "1"
	save := func(key, value string) Change { return Change{Key: key, Value: []byte(value)} }
	gone := func(key string) Change { return Change{Key: key, Delete: true} }
	tagged := func(c Change) Change { c.ETag = &etag; return c }
	fresh := func(c Change) Change { c.FirstWrite = true; return c }
	for name, c := range map[string]struct {
		in, want []Change
		conflict bool
	}{
		"one of each":                {in: []Change{save("a", "1"), gone("b")}, want: []Change{save("a", "1"), gone("b")}},
		"last wins":                  {in: []Change{save("a", "1"), save("b", "1"), save("a", "2")}, want: []Change{save("a", "2"), save("b", "1")}},
		"saved and deleted":          {in: []Change{save("a", "1"), gone("a")}, want: []Change{gone("a")}},
		"condition of the first":     {in: []Change{tagged(save("a", "1")), save("a", "2")}, want: []Change{tagged(save("a", "2"))}},
		"first write, then deleted":  {in: []Change{fresh(save("a", "1")), gone("a")}, want: []Change{fresh(gone("a"))}},
		"deleted, then first write":  {in: []Change{gone("a"), fresh(save("a", "1"))}, want: []Change{save("a", "1")}},
		"first write of a delete":    {in: []Change{fresh(gone("a"))}, want: []Change{gone("a")}},
		"ETag beside first write":    {in: []Change{fresh(tagged(save("a", "1")))}, want: []Change{tagged(save("a", "1"))}},
		"first write of what is new": {in: []Change{save("a", "1"), fresh(save("a", "2"))}, conflict: true},
		"ETag of what is new":        {in: []Change{save("a", "1"), tagged(gone("a"))}, conflict: true},
	} {
		got, err := Final(c.in)
		if c.conflict {
			if err == nil || fault.KindOf(err) != fault.Conflict {
				t.Errorf("%s: %v, want a conflict", name, err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
}

func TestApplyEachKeepsTheOrderOfAKey(t *testing.T) {
	t.Parallel()
	var changes []Change
	for i := range 100 {
		changes = append(changes, Change{Key: string(rune('a' + i%7)), Value: []byte{byte(i)}})
	}
	var mu sync.Mutex
	got := map[string][]byte{}
	err := ApplyEach(t.Context(), changes, 4, func(_ context.Context, c *Change) error {
		mu.Lock()
		defer mu.Unlock()
		got[c.Key] = append(got[c.Key], c.Value[0])
		if c.Value[0] == 50 {
			return fault.New(fault.Conflict, "no")
		}
		return nil
	})
	for key, values := range got {
		for i, v := range values {
			if want := byte(key[0]-'a') + byte(7*i); v != want {
				t.Fatalf("change %d of %s is %d, want %d", i, key, v, want)
			}
		}
	}
	be, ok := err.(*BatchError)
	if !ok || len(be.Errs) != 100 || be.Errs[50] == nil || len(be.Unwrap()) != 1 {
		t.Errorf("the error is %v, want one about change 50 of 100", err)
	}
}
