//go:build services

package ledger

import (
	"syscall"
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

// serverBrokers are those whose servers package services starts.
func serverBrokers() []*broker {
	return []*broker{
		rabbitBroker(),
		redisBroker(),
		jetstreamBroker(),
		postgresBroker(),
		kafkaBroker(),
		mqttBroker("mqtt3"), mqttBroker("mqtt5"),
		snssqsBroker("snssqs", false), snssqsBroker("snssqs fifo", true),
	}
}

// started is a server of package services as the rows want it. It is started by
// open, and gone at the end of the test.
type started struct {
	t *testing.T
	*services.Server
}

// Stop stops the server in order.
func (s *started) Stop() { s.must(s.Server.Stop(syscall.SIGTERM)) }

// Start starts it again.
func (s *started) Start() { s.must(s.Server.Start()) }

// Kill kills it.
func (s *started) Kill() { s.must(s.Server.Kill()) }

func (s *started) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

// opens starts a server of that name for a broker; host makes its address of
// what package services says.
func (b *broker) opens(name string, host func(addr string) string) *broker {
	b.open = func(t *testing.T) {
		s := services.Start(t, name)
		b.server = &started{t, s}
		b.addr = func() string { return host(s.Addr) }
		b.version = s.Version
	}
	b.hasServer = true
	return b
}
