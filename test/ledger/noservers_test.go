//go:build !services

package ledger

// serverBrokers are none where there are no servers.
func serverBrokers() []*broker { return nil }
