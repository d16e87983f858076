//go:build !services

package ledger

import "testing"

// TestLedger plays the rows with the broker that needs no server.
func TestLedger(t *testing.T) {
	t.Parallel()
	ledger(t, sqliteBroker())
}
