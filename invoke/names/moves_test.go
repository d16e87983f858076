package names_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// An app that was started anew is found by the first call after one that could
// not reach it, though what was known of it is not old enough to be waited for.
func TestTheOnlyInstanceMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("shop", "a:1")
		d := directory(t, b)
		call(t, d, "shop", nil)
		pass(3 * time.Second)
		b.set("shop", "a:1", "b:1") // the resolver does not know that a is gone
		if got := call(t, d, "shop", refused()); got != "a:1" {
			t.Fatalf("picked %s, which nothing was known of", got)
		}
		for range 10 {
			if got := call(t, d, "shop", nil); got != "b:1" {
				t.Errorf("picked %s after a refusal of the other", got)
			}
		}
	})
}
