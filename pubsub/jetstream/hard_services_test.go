//go:build services

package jetstream

import (
	"syscall"
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

// TestServiceFaults has the hard cases on a real server that is this test's own.
func TestServiceFaults(t *testing.T) {
	s := services.Start(t, "nats")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// In memory: a server of version 2.9 that deletes a stream removes the files of
	// the next one too when that is made at once.
	t.Run("deleted", func(t *testing.T) { deleted(t, s.Addr, "memoryStorage", "true") })
	must(clean(t, s.Addr))
	t.Run("take over", func(t *testing.T) { takeOver(t, s.Addr) })
	must(clean(t, s.Addr))
	t.Run("restart", func(t *testing.T) {
		serverRestart(t, machine{s.Addr, func() { must(s.Stop(syscall.SIGTERM)) }, func() { must(s.Start()) }})
	})
	must(clean(t, s.Addr))
	t.Run("killed", func(t *testing.T) {
		serverRestart(t, machine{s.Addr, func() { must(s.Kill()) }, func() { must(s.Start()) }})
	})
}

// clean deletes the stream that the cases have in common.
func clean(t *testing.T, url string) error {
	t.Helper()
	return raw(t, url).DeleteStream(t.Context(), "orders")
}
