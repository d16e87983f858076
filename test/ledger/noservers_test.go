//go:build !services

package ledger

import "testing"

// serverBrokers are none where there are no servers.
func serverBrokers(*testing.T) []*broker { return nil }
