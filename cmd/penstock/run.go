package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/fault"
)

type runCommand struct {
	serveFlags `embed:""`
	Command    []string `arg:"" passthrough:"" optional:"" help:"The app's command and its arguments, after --."`
}

// Run starts the app and Penstock beside it. Both end together: when the app
// ends, Penstock drains and the app's exit code is returned; when a signal
// comes, or the terminal is closed, the app is asked to end with SIGTERM, what
// it has started too, and after the grace period made to. A second signal does
// that at once. The app reads nothing from the terminal.
func (c *runCommand) Run(ctx context.Context, std *stdio) error {
	words := c.Command
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		return fault.New(fault.Invalid, "run app: no command; write it after --, as in: penstock run --app-port 8080 -- node app.js")
	}
	if _, err := exec.LookPath(words[0]); err != nil { // said before anything is started
		return fault.Wrap(err, "run app %s", words[0])
	}
	if err := c.fill(words[0]); err != nil {
		return err
	}
	var lock sync.Mutex
	own := &prefixed{w: std.out, lock: &lock, prefix: "penstock | "}
	log := newLogger(own, &c.serveFlags)

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, &c.serveFlags, log, nil)
		stop()
	}()
	appErr := c.app(ctx, words, &prefixed{w: std.out, lock: &lock, prefix: "app      | "})
	stop()
	err := <-served
	own.flush()
	return errors.Join(err, appErr)
}

// fill chooses what was not given: an app id and free ports.
func (c *runCommand) fill(command string) error {
	if c.AppID == "" {
		c.AppID = strings.TrimSuffix(command[strings.LastIndexAny(command, "/\\")+1:], ".exe")
	}
	for _, p := range []struct {
		port  *int
		usual int
	}{{&c.HTTPPort, 3500}, {&c.GRPCPort, 50001}} {
		if *p.port != 0 && (*p.port != p.usual || free(p.usual)) {
			continue
		}
		*p.port = 0
		for *p.port == 0 || c.HTTPPort == c.GRPCPort {
			var err error
			if *p.port, err = freePort(); err != nil {
				return err
			}
		}
	}
	return nil
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fault.Wrap(err, "find a free port")
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// app runs the user's command until it ends by itself or ctx ends; then it is
// asked to stop and, after the grace period, killed.
func (c *runCommand) app(ctx context.Context, words []string, out *prefixed) error {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(),
		fmt.Sprintf("DAPR_HTTP_PORT=%d", c.HTTPPort), fmt.Sprintf("DAPR_HTTP_ENDPOINT=http://127.0.0.1:%d", c.HTTPPort),
		fmt.Sprintf("DAPR_GRPC_PORT=%d", c.GRPCPort), fmt.Sprintf("DAPR_GRPC_ENDPOINT=http://127.0.0.1:%d", c.GRPCPort),
		"APP_ID="+c.AppID, "APP_PROTOCOL="+c.AppProtocol)
	if c.AppPort > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("APP_PORT=%d", c.AppPort))
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return signalGroup(cmd.Process, syscall.SIGTERM) }
	cmd.WaitDelay = c.grace()
	inOwnGroup(cmd)
	if err := cmd.Start(); err != nil {
		return fault.Wrap(err, "run app %s", words[0])
	}
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { endAtOnce(ctx, cmd.Process, ended) })
	err := cmd.Wait()
	// What the app has started and left behind would keep its ports. That
	// there is nothing left is no news.
	_ = signalGroup(cmd.Process, syscall.SIGKILL)
	close(ended)
	watch.Wait()
	out.flush()
	if ctx.Err() != nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil // we ended it, or what it left behind
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		fmt.Fprintf(out, "ended: %v\n", e)
		return exitCode(max(1, e.ExitCode()))
	}
	return fault.Wrap(err, "run app %s", words[0])
}

// grace is how long the app may take to end; zero is the default, as for the
// events under way.
func (c *runCommand) grace() time.Duration {
	if c.GracefulShutdownSeconds <= 0 {
		return 5 * time.Second
	}
	return time.Duration(c.GracefulShutdownSeconds) * time.Second
}

// endAtOnce kills the app and this process on a signal that comes after the one
// that has ended ctx: the app has a group of its own, and the terminal does not
// reach it.
func endAtOnce(ctx context.Context, app *os.Process, ended <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-ended:
		return
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	select {
	case <-again:
		_ = signalGroup(app, syscall.SIGKILL) // there is no time left to tell
		os.Exit(1)
	case <-ended:
	}
}

// prefixed writes whole lines with a prefix, so that two logs stay readable
// side by side.
type prefixed struct {
	w      io.Writer
	lock   *sync.Mutex
	prefix string
	rest   []byte
}

// Write keeps what is not yet a whole line; lines above 64 KiB are cut in two.
func (p *prefixed) Write(b []byte) (int, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.rest = append(p.rest, b...)
	for {
		n, line, err := bufio.ScanLines(p.rest, false)
		if err != nil || n == 0 {
			if len(p.rest) < 64<<10 {
				return len(b), nil
			}
			n, line = len(p.rest), p.rest
		}
		if _, err := fmt.Fprintf(p.w, "%s%s\n", p.prefix, line); err != nil {
			return 0, err
		}
		p.rest = p.rest[n:]
	}
}

func (p *prefixed) flush() {
	p.lock.Lock()
	defer p.lock.Unlock()
	if len(p.rest) > 0 {
		fmt.Fprintf(p.w, "%s%s\n", p.prefix, p.rest)
		p.rest = nil
	}
}
