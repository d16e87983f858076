// Package mqttserver runs an MQTT server for a test, in a process of its own: a
// test that counts goroutines does not see the server's, and can kill it.
//
// A test package calls [Main] in its TestMain and [Start] where it needs a
// server. The process is the test's own binary, so only Go is needed. The server
// speaks MQTT 3.1.1 and 5 and keeps everything in memory: what it had is gone
// after a restart, sessions too.
//
// It promises a server on a loopback port, and that the server ends with the
// test.
package mqttserver

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"testing"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/penstock-io/penstock/test/fake/child"
)

const variable = "PENSTOCK_TEST_MQTT_SERVER"

// Options say what the server is like.
type Options struct {
	Port               int // 0: any
	Username, Password string
}

// Main runs the tests, or the server where this process was started to be one. It
// returns the exit code.
func Main(m *testing.M) int { return child.Main(m, variable, serve) }

// serve runs a server until the other process is gone. Its limits are so high
// that it drops nothing.
func serve(o Options) error {
	limits := mqtt.NewDefaultServerCapabilities()
	limits.MaximumInflight, limits.ReceiveMaximum = 65535, 65535
	limits.MaximumClientWritesPending = 1 << 17
	s := mqtt.New(&mqtt.Options{Capabilities: limits, Logger: slog.New(slog.DiscardHandler)})
	users := &auth.Ledger{}
	if o.Username != "" {
		users.Auth = auth.AuthRules{{Username: auth.RString(o.Username), Password: auth.RString(o.Password), Allow: true}}
	} else {
		users.Auth = auth.AuthRules{{Allow: true}}
	}
	if err := s.AddHook(new(auth.Hook), &auth.Options{Ledger: users}); err != nil {
		return err
	}
	if err := s.AddHook(new(boundless), nil); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(o.Port))
	if err != nil {
		return err
	}
	if err := s.AddListener(listeners.NewNet("test", l)); err != nil {
		return err
	}
	if err := s.Serve(); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	_ = s.Close() // the process ends anyway
	return err
}

// boundless lets a client have any number of messages without an acknowledgement.
// The library locks itself up when it looks for one that has waited for room: it
// takes a lock for reading twice, and a writer in between waits for ever.
type boundless struct{ mqtt.HookBase }

// ID implements mqtt.Hook.
func (*boundless) ID() string { return "boundless" }

// Provides implements mqtt.Hook.
func (*boundless) Provides(what byte) bool { return what == mqtt.OnSessionEstablished }

// OnSessionEstablished implements mqtt.Hook.
func (*boundless) OnSessionEstablished(c *mqtt.Client, _ packets.Packet) {
	c.State.Inflight.ResetSendQuota(0)
}

// Server is one running server.
type Server struct{ *child.Server }

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	return &Server{child.Start(t, variable, o.Port, func(port int) any {
		o.Port = port
		return o
	})}
}

// URL is where clients connect; it stays the same across a restart.
func (s *Server) URL() string { return "mqtt://" + s.Addr() }
