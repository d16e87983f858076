// Package child runs a server for a test in a process of its own: a test that
// counts goroutines does not see the server's, and can kill it.
//
// The process is the test's own binary, so only Go is needed. A package of a
// server calls [Main] from its Main, which a test package calls in its TestMain,
// and [Start] from its Start.
//
// It promises a server on a loopback port that stays the same across restarts,
// and that the process ends with the test.
package child

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Main runs the tests, or serve where this process was started to be the server:
// the environment variable holds its options then. serve prints its address with
// a newline when it is ready, and returns when standard input ends. Main returns
// the exit code.
func Main[O any](m *testing.M, variable string, serve func(O) error) int {
	text := os.Getenv(variable)
	if text == "" {
		return m.Run()
	}
	var o O
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		err = serve(o)
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// Server is one running server.
type Server struct {
	t        testing.TB
	variable string
	options  func(port int) any
	port     int
	cmd      *exec.Cmd
	stop     io.Closer
}

// Start runs a server until the test ends; options are those for a port, which is
// zero the first time when any is good.
func Start(t testing.TB, variable string, port int, options func(port int) any) *Server {
	t.Helper()
	s := &Server{t: t, variable: variable, options: options, port: port}
	s.run()
	t.Cleanup(s.Stop)
	return s
}

// Addr is the host and port where it listens.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// Stop ends the server.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.stop.Close()
	late := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
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

// Restart runs the server again, with what it had stored, if it stores anything.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.run()
}

func (s *Server) run() {
	s.t.Helper()
	text, err := json.Marshal(s.options(s.port))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), s.variable+"="+string(text))
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
		_ = in.Close()
		s.t.Fatalf("start the server: %q, %v", line, err)
	}
	s.cmd, s.stop = cmd, in
	if s.port, err = strconv.Atoi(port); err != nil {
		s.t.Fatal(err)
	}
}
