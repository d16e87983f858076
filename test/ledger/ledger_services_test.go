//go:build services

package ledger

import "testing"

// TestLedger plays the rows with every broker.
func TestLedger(t *testing.T) {
	t.Parallel()
	ledger(t, append([]*broker{sqliteBroker()}, serverBrokers()...)...)
}
