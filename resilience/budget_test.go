package resilience

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestABudgetBoundsTheTriesOfAllCalls holds that a target which fails gets a share
// more than it is called for, and one that is well does not notice.
func TestABudgetBoundsTheTriesOfAllCalls(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		budget *Budget
		calls  int
		tries  int
	}{
		{"no bound", nil, 100, 400},
		{"few calls", NewBudget(0.2), 3, 12},
		{"many calls", NewBudget(0.2), 1000, 1000 + budgetReserve + 200},
		{"none beyond the reserve", NewBudget(0), 1000, 1000 + budgetReserve},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				p := Policy{Retry: Retry{Constant: true, Initial: time.Millisecond, Limit: 3, Budget: row.budget}}
				for range row.calls {
					if p.Do(t.Context(), func(context.Context) error { tries++; return down() }) == nil {
						t.Error("no error")
					}
				}
				if tries < row.tries-1 || tries > row.tries { // a sum of fractions
					t.Errorf("%d tries, want %d", tries, row.tries)
				}
			})
		})
	}
	t.Run("saved up", func(t *testing.T) {
		t.Parallel()
		b := NewBudget(1)
		for range 1000 {
			b.Called()
		}
		n := 0
		for b.Spend() {
			n++
		}
		if n != budgetMost {
			t.Errorf("%d were saved up", n)
		}
	})
}
