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
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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
func Main(m *testing.M) int {
	text := os.Getenv(variable)
	if text == "" {
		return m.Run()
	}
	var o Options
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	if err := serve(o); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

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
type Server struct {
	t    testing.TB
	o    Options
	cmd  *exec.Cmd
	stop io.Closer
}

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Folder == "" {
		o.Folder = t.TempDir()
	}
	s := &Server{t: t, o: o}
	s.run()
	t.Cleanup(s.Stop)
	return s
}

// URL is where clients connect; it stays the same across a restart.
func (s *Server) URL() string { return "nats://127.0.0.1:" + strconv.Itoa(s.o.Port) }

// Stop ends the server.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.stop.Close()
	_ = s.cmd.Wait() // it may have been killed
	s.cmd = nil
}

// Kill ends the server at once, as a crash would.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
	}
	s.Stop()
}

// Restart runs the server again, with what it had stored.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.run()
}

func (s *Server) run() {
	s.t.Helper()
	text, err := json.Marshal(s.o)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, port, perr := net.SplitHostPort(strings.TrimSpace(line))
	if err != nil || perr != nil {
		s.t.Fatalf("start NATS server: %q, %v", line, err)
	}
	s.cmd, s.stop = cmd, in
	s.o.Port, err = strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
}
