package resilience

import "sync"

const (
	// budgetReserve is how many tries more are free at the beginning: with few
	// calls a share of them is less than one.
	budgetReserve = 10
	// budgetMost is how many can be saved up.
	budgetMost = 100
)

// Budget bounds the tries after the first as a share of the calls, so that many
// callers of one target that is in trouble do not multiply what it has to do. nil
// is no bound. It is safe for concurrent use.
type Budget struct {
	share float64

	mu    sync.Mutex
	saved float64 // how many tries more there may be
}

// NewBudget makes a budget of that many tries more for each call, 0.2 being one
// for every five. Ten are there from the beginning, and at most a hundred are
// saved up.
func NewBudget(share float64) *Budget { return &Budget{share: share, saved: budgetReserve} }

// Called says that there is a new call, which is not another try.
func (b *Budget) Called() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saved = min(b.saved+b.share, budgetMost)
}

// Spend tells whether there may be another try now, and takes it off.
func (b *Budget) Spend() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.saved < 1 {
		return false
	}
	b.saved--
	return true
}
