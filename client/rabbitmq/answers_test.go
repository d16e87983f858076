package rabbitmq

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestAnswersNeverTellTooMuch plays the server: an answer for many tells of no
// message that waits for its outcome, its own tag is one that the server still
// has, and in the end everything that was settled is told.
func TestAnswersNeverTellTooMuch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var known tags
		held := map[uint64]bool{} // by the server: true when settled
		next := uint64(1)
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for range steps {
			for range rapid.IntRange(0, 9).Draw(t, "deliveries") {
				known.add(next)
				held[next] = false
				next++
			}
			open := slices.Sorted(maps.Keys(held))
			for _, tag := range open {
				switch rapid.IntRange(0, 5).Draw(t, "outcome") {
				case 0, 1, 2:
					known.find(tag).state = settled
					held[tag] = true
				case 3: // rejected by itself
					known.find(tag).state = told
					delete(held, tag)
				}
			}
			upTo, singly := known.tell(nil)
			if _, ok := held[upTo]; !ok && upTo != 0 {
				t.Fatalf("the server does not know tag %d", upTo)
			}
			for _, tag := range slices.Sorted(maps.Keys(held)) {
				if tag <= upTo {
					if !held[tag] {
						t.Fatalf("tag %d is told by %d and not settled", tag, upTo)
					}
					delete(held, tag)
				}
			}
			for _, tag := range singly {
				if !held[tag] {
					t.Fatalf("tag %d is told and not settled, or twice", tag)
				}
				delete(held, tag)
			}
			for tag, settled := range held {
				if settled {
					t.Fatalf("tag %d is settled and not told", tag)
				}
			}
			if len(known.list) > 2*len(held)+1 {
				t.Fatalf("%d tags are remembered for %d open ones", len(known.list), len(held))
			}
		}
	})
}

func TestRetryDelayIsNeverShorter(t *testing.T) {
	t.Parallel()
	queues := map[time.Duration]bool{}
	for asked := time.Millisecond; asked < longestDelay; asked += asked/50 + 1 {
		d := retryDelay(asked, 1)
		if d < asked || d > asked*4/3+time.Millisecond || d%time.Millisecond != 0 {
			t.Fatalf("%s for %s", d, asked)
		}
		queues[d] = true
	}
	if len(queues) > 100 {
		t.Errorf("%d queues for all delays", len(queues))
	}
	if first, later, most := retryDelay(0, 1), retryDelay(0, 4), retryDelay(0, 1000); first != 50*time.Millisecond || later != 400*time.Millisecond || most != unaskedDelay {
		t.Errorf("nobody asks: %s, %s, %s", first, later, most)
	}
	if d := retryDelay(365*24*time.Hour, 1); d < longestDelay || d > longestDelay*4/3 {
		t.Errorf("a year is %s", d)
	}
}
