// Package natsserver runs a real NATS server for a test, in a process of its own:
// a test that counts goroutines does not see the server's, and can kill it.
//
// A test package calls [Main] in its TestMain and [Start] where it needs a
// server. The process is the test's own binary, so only Go is needed.
//
// It promises a server on a loopback port, with JetStream in a folder that goes
// with the test, and that the server ends with the test.
package natsserver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/penstock-io/penstock/test/fake/child"
)

const variable = "PENSTOCK_TEST_NATS_SERVER"

// Options say what the server is like.
type Options struct {
	Port                      int // 0: any
	Folder                    string
	Token, Username, Password string
	MaxPayload                int32 // bytes; 0 is 8 MiB
	// Config is the text of a configuration file: what is not an option here,
	// such as accounts, permissions and TLS.
	Config string
}

// Main runs the tests, or the server where this process was started to be one. It
// returns the exit code.
func Main(m *testing.M) int { return child.Main(m, variable, serve) }

// serve runs a server until the other process is gone.
func serve(o Options) error {
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = 8 << 20
	}
	conf := &server.Options{Authorization: o.Token, Username: o.Username, Password: o.Password}
	if o.Config != "" {
		name := filepath.Join(o.Folder, "server.conf")
		if err := os.WriteFile(name, []byte(o.Config), 0o600); err != nil {
			return err
		}
		var err error
		if conf, err = server.ProcessConfigFile(name); err != nil {
			return err
		}
	}
	conf.Host, conf.Port, conf.JetStream, conf.StoreDir = "127.0.0.1", o.Port, true, o.Folder
	conf.NoLog, conf.NoSigs, conf.MaxPayload = true, true, o.MaxPayload
	s, err := server.NewServer(conf)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		return fmt.Errorf("the server does not get ready")
	}
	fmt.Println(s.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	s.WaitForShutdown()
	return err
}

// Server is one running server.
type Server struct{ *child.Server }

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Folder == "" {
		o.Folder = t.TempDir()
	}
	return &Server{child.Start(t, variable, o.Port, func(port int) any {
		o.Port = port
		return o
	})}
}

// URL is where clients connect; it stays the same across a restart.
func (s *Server) URL() string { return "nats://" + s.Addr() }
