package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/test/port"
)

// process is a program that is measured from outside.
type process struct {
	cmd     *exec.Cmd
	log     logBuffer
	address string // host:port of its server
}

// logBuffer keeps what a process says, for when something goes wrong.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	return s[max(0, len(s)-2000):]
}

func freeAddress() (string, error) {
	p, err := port.Free()
	return fmt.Sprintf("127.0.0.1:%d", p), err
}

// run starts a program in a folder; its server listens at address.
func run(dir, address, program string, args ...string) (*process, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(program, args...), address: address}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	return p, p.cmd.Start()
}

// serve starts penstock on the resources in dir.
func (b *bench) serve(dir string, args ...string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	flags := []string{"serve", "--app-id", "bench", "--dapr-http-port", port, "--dapr-grpc-port", "0", "--data-dir", filepath.Join(dir, "data"), "--log-level", "warn"}
	return run(dir, address, b.penstock, append(flags, args...)...)
}

// ready waits until the health check says 204 and returns how long that took.
func (p *process) ready(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for time.Since(began) < 20*time.Second {
		if p.healthy() {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(2 * time.Millisecond): // asking more often takes time from the start itself
		}
	}
	return 0, fmt.Errorf("%s is not ready after 20 s; it said:\n%s", p.cmd.Path, p.log.tail())
}

// healthy asks once, on a connection of its own.
func (p *process) healthy() bool {
	c, err := net.DialTimeout("tcp", p.address, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "GET /v1.0/healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", p.address)
	answer := make([]byte, 12)
	n, _ := c.Read(answer)
	return strings.HasSuffix(string(answer[:n]), strconv.Itoa(http.StatusNoContent))
}

// stop ends the process and waits for it.
func (p *process) stop() {
	if p == nil || p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	// How it ends is not what is measured.
	_ = p.cmd.Wait()
}

// cpu is the user and system time of the process so far: the sum over its
// threads, which the kernel counts in nanoseconds.
func (p *process) cpu() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return 0, errors.New("read cpu time: there is no /proc/PID/task/TID/schedstat")
	}
	var sum time.Duration
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// memory is the resident memory in MB.
func (p *process) memory() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, errors.New("read memory: no VmRSS in /proc/PID/status")
}
