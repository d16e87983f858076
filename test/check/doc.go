// Package check holds `penstock check` to its word: every wrong configuration
// below testdata/wrong has the exact report next to it.
package check
