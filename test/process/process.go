// Package process runs penstock as users do: the built program, in a process of
// its own, that can be killed, stopped, frozen and started again.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Build builds penstock into a folder and returns its path. Root is the folder
// of the module.
func Build(root, dir string) (string, error) {
	path := filepath.Join(dir, "penstock")
	build := exec.Command("go", "build", "-C", root, "-o", path, "./cmd/penstock")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does, also where the tests have the race detector
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build penstock: %w\n%s", err, out)
	}
	return path, nil
}

// Main lets the tests of a package, which run runs, have the path of a penstock that
// is built from this module, or of the one that PENSTOCK in the environment names. It
// returns the exit code. It is called by TestMain, two folders below the module.
func Main(run func() int, path *string) int {
	if *path = os.Getenv("PENSTOCK"); *path != "" {
		return run()
	}
	dir, err := os.MkdirTemp("", "penstock-test")
	if err == nil {
		defer os.RemoveAll(dir)
		*path, err = Build("../..", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// Sidecar is a program that can be started again and again with the same
// arguments: penstock, or a test's own. Set what is needed before the first
// Start. Its methods are called by one goroutine at a time.
type Sidecar struct {
	Path string
	Args []string
	Env  []string // added to that of this process
	// Port is that of the API, whose health tells when the program is ready.
	Port int

	log Log
	cmd *exec.Cmd
}

// API is the URL of a path of Dapr's HTTP API.
func (s *Sidecar) API(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d/v1.0%s", s.Port, path)
}

// Log is what the program has printed, over all its starts.
func (s *Sidecar) Log() string { return s.log.String() }

// Run starts the program and does not wait until it is ready.
func (s *Sidecar) Run() error {
	s.cmd = exec.Command(s.Path, s.Args...)
	s.cmd.Env = append(os.Environ(), s.Env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	return s.cmd.Start()
}

// Start runs the program and returns when it is ready, or with an error when it
// is not within the limit. The program runs on then.
func (s *Sidecar) Start(limit time.Duration) error {
	if err := s.Run(); err != nil {
		return err
	}
	end := time.Now().Add(limit)
	for !s.Ready() {
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready within %v", filepath.Base(s.Path), limit)
		}
		<-time.After(5 * time.Millisecond)
	}
	return nil
}

// Ready asks the program whether it is ready.
func (s *Sidecar) Ready() bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get(s.API("/healthz"))
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusNoContent
}

// Running tells whether the program was started and not ended by a method of
// this.
func (s *Sidecar) Running() bool { return s.cmd != nil && s.cmd.ProcessState == nil }

// PID is the process that runs.
func (s *Sidecar) PID() int { return s.cmd.Process.Pid }

// Kill ends the program with SIGKILL, frozen or not.
func (s *Sidecar) Kill() {
	if s.Running() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

// Stop ends the program with SIGTERM and waits. It returns an error unless the
// end was a clean one within the limit; after the limit the program is killed.
func (s *Sidecar) Stop(limit time.Duration) error {
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.Wait(limit)
}

// Signal sends a signal: SIGSTOP freezes the program, SIGCONT thaws it.
func (s *Sidecar) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

// Wait waits for the end of the program, as [Sidecar.Stop].
func (s *Sidecar) Wait(limit time.Duration) error {
	timer := time.AfterFunc(limit, func() { s.cmd.Process.Kill() })
	err := s.cmd.Wait()
	if !timer.Stop() {
		return errors.Join(fmt.Errorf("%s did not end within %v", filepath.Base(s.Path), limit), err)
	}
	return err
}

// Log keeps what a program prints. It may be read while the program runs.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is the whole log.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
