//go:build services

package rabbitmq

import (
	"syscall"
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestSuitesOnServer(t *testing.T) { // not parallel: the suites count goroutines
	suites(t, services.Need(t, "rabbitmq"))
}

func TestCasesOnServer(t *testing.T) { cases(t, services.Need(t, "rabbitmq")) }

// A server that is stopped closes the connections of its clients and says why; one
// that is killed says nothing.
func TestRestartOnServer(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"stopped": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := services.Start(t, "rabbitmq")
			must := func(err error) {
				if err != nil {
					t.Fatal(err)
				}
			}
			restarts(t, s.Addr, func() { must(s.Stop(signal)) }, func() { must(s.Start()) })
		})
	}
}
