package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Node is one process of a server.
type Node struct {
	// Addr is the host and port that it listens on.
	Addr string

	command []string
	env     []string // added to the environment
	user    string   // to run as, when the tests run as root; empty: the same
	term    syscall.Signal
	ready   func(ctx context.Context, addr string) error
	log     string

	mu      sync.Mutex
	process *os.Process
	ended   chan struct{} // closed when the process has ended
}

// Start starts the process and waits until it answers, at most eight minutes. One
// that ends at once is started again: after a kill the system, or a child of
// the process that was killed, may hold a port or a lock for a moment.
func (n *Node) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for try := 1; ; try++ {
		if err := n.launch(); err != nil {
			return err
		}
		err := n.await(ctx)
		if err == nil {
			return nil
		}
		if try == 5 || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("%w; the end of its log:\n%s", err, n.tail()), n.Kill())
		}
		if err := n.Kill(); err != nil {
			return err
		}
		pause(time.Duration(try) * 300 * time.Millisecond)
	}
}

// launch starts the process. A goroutine with a thread of its own does so and
// stays until the process has ended: the system kills the child when the thread
// that made it ends, so that an interrupted test leaves nothing behind.
func (n *Node) launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && !done(n.ended) {
		return fmt.Errorf("start %s: it is running", n.command[0])
	}
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(n.command[0], n.command[1:]...)
	cmd.Env = append(os.Environ(), n.env...)
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr, err = attributes(n.user); err != nil {
		return err
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	n.process, n.ended = cmd.Process, ended
	return nil
}

// await asks until the process answers.
func (n *Node) await(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := n.ready(one, n.Addr)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-n.ended:
			return fmt.Errorf("%s ended at once", n.command[0])
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", n.command[0], err)
		case <-tick.C:
		}
	}
}

// Signal sends a signal to the process: SIGSTOP freezes it and SIGCONT thaws
// it. It does nothing when the process has ended.
func (n *Node) Signal(sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || done(n.ended) {
		return nil
	}
	return signal(n.process, sig)
}

// Stop is Server.Stop for one process.
func (n *Node) Stop(sig syscall.Signal) error {
	if sig == syscall.SIGTERM {
		sig = n.term
	}
	if err := n.Signal(sig); err != nil {
		return err
	}
	n.mu.Lock()
	ended := n.ended
	n.mu.Unlock()
	if ended == nil {
		return nil
	}
	late := time.NewTimer(60 * time.Second)
	defer late.Stop()
	select {
	case <-ended:
		return nil
	case <-late.C:
	}
	err := n.Signal(syscall.SIGKILL)
	<-ended
	return errors.Join(fmt.Errorf("stop %s: it was still there 60 s after signal %d, and was killed", n.command[0], sig), err)
}

// Kill is Server.Kill for one process.
func (n *Node) Kill() error { return n.Stop(syscall.SIGKILL) }

// tail returns the last lines of the log.
func (n *Node) tail() []byte {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-15):], []byte("\n"))
}

func done(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
