//go:build services

package ledger

import "testing"

// serverBrokers are those whose servers package services starts.
func serverBrokers(*testing.T) []*broker { return nil }
