package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
	"github.com/penstock-io/penstock/runtime"
)

type runCommand struct {
	serveFlags `embed:""`
	RunFile    string   `name:"run-file" short:"f" help:"Start every app of a run file (dapr.yaml), or of the folder that has it; - reads standard input."`
	LogsDir    string   `name:"logs-dir" help:"Folder to keep both logs in, besides showing them."`
	Supervised bool     `name:"supervised" hidden:"" help:"Started by run -f, which says more on standard input."`
	Command    []string `arg:"" passthrough:"" optional:"" help:"The app's command and its arguments, after --."`
}

// Run starts the app and Penstock beside it. Both end together: when the app
// ends, Penstock drains and the app's exit code is returned; when a signal
// comes, or the terminal is closed, the app is asked to end with SIGTERM, what
// it has started too, and after the grace period made to. A second signal does
// that at once. The app reads nothing from the terminal. With a run file it does
// so for every app in it.
func (c *runCommand) Run(ctx context.Context, std *stdio, line *kong.Context) error {
	if c.RunFile != "" {
		return c.runAll(ctx, std, line)
	}
	words := c.Command
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 && !c.Supervised {
		return fault.New(fault.Invalid, "run app: no command; write it after --, as in: penstock run --app-port 8080 -- node app.js")
	}
	if len(words) > 0 {
		if _, err := exec.LookPath(words[0]); err != nil { // said before anything is started
			return fault.Wrap(err, "run app %s", words[0])
		}
	}
	if !c.Supervised { // run -f has chosen
		if err := c.fill(words[0]); err != nil {
			return err
		}
	}
	c.console.usual = true
	o, gone, err := c.orders()
	if err != nil {
		return err
	}
	pair := &pair{c: c, words: words, orders: o, gone: gone}
	if err := pair.open(std.out); err != nil {
		return err
	}
	defer pair.close()
	return pair.run(ctx)
}

// orders are what run -f tells each run that it starts, beside flags: one line
// of JSON on standard input, which then stays open as long as run -f is there.
type orders struct {
	Env     map[string]string // for the app alone
	RunFile string
	Runner  instances.Process
	App     logOrder
	Own     logOrder
}

// logOrder says where a log goes: before its lines on the terminal stands a
// prefix, and either may be missing.
type logOrder struct {
	Console      bool
	Prefix, File string
}

// orders returns those of run -f, and a channel that is closed when it is gone;
// or what run alone does.
func (c *runCommand) orders() (o orders, gone <-chan struct{}, err error) {
	if !c.Supervised {
		o.App, o.Own = logOrder{Console: true, Prefix: "app      | "}, logOrder{Console: true, Prefix: "penstock | "}
		if c.LogsDir != "" {
			o.App.File, o.Own.File = logNames(c.LogsDir, c.AppID, time.Now())
		}
		return o, nil, nil
	}
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&o); err != nil {
		return o, nil, fault.New(fault.Invalid, "read orders of run -f: %w", err)
	}
	end := make(chan struct{})
	go func() { // it ends with this process, at the latest
		defer close(end)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return o, end, nil
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
		ports, err := freePorts(2)
		if err != nil {
			return err
		}
		*p.port = ports[0]
		if c.HTTPPort == c.GRPCPort {
			*p.port = ports[1]
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

// freePorts returns ports that nobody uses, each another.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fault.Wrap(err, "find a free port")
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// pair is an app and the Penstock beside it.
type pair struct {
	c      *runCommand
	words  []string // the app's command; empty: no app
	orders orders
	gone   <-chan struct{} // closed when run -f is gone; nil without it
	app    *output
	own    *output
}

// open makes the logs.
func (p *pair) open(console io.Writer) error {
	lock := &sync.Mutex{}
	outputs := [2]*output{}
	for i, order := range []logOrder{p.orders.App, p.orders.Own} {
		file, err := logFile(order.File)
		if err != nil {
			return err
		}
		outputs[i] = &output{file: file}
		if order.Console {
			outputs[i].console = &prefixed{w: console, lock: lock, prefix: order.Prefix}
		}
	}
	p.app, p.own = outputs[0], outputs[1]
	return nil
}

func (p *pair) close() {
	p.app.close()
	p.own.close()
}

// run opens the ports, starts the app, and serves beside it until one of them
// ends.
func (p *pair) run(asked context.Context) error {
	ctx, stop := signal.NotifyContext(asked, syscall.SIGHUP)
	defer stop()
	unwatch := p.watch(ctx, stop)
	defer unwatch()
	log := newLogger(p.own, &p.c.serveFlags)
	rt, err := prepare(&p.c.serveFlags, log, nil)
	if err != nil {
		return err
	}
	about := p.about()
	var cmd *exec.Cmd
	life, end := appLife(ctx, rt)
	defer end()
	if len(p.words) > 0 {
		if cmd, err = p.start(life); err != nil {
			return err
		}
		about.AppPID = cmd.Process.Pid
	}
	defer announce(about, log)()
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, rt)
		stop()
		end()
	}()
	var appErr error
	if cmd != nil {
		appErr = p.wait(asked, ctx, cmd)
		stop()
	}
	return errors.Join(<-served, appErr)
}

// appLife ends when rt takes no more events, or end is called. An app that is
// told to end before would have events come to it, and fail, as long as the stop
// is blocked.
func appLife(ctx context.Context, rt *runtime.Runtime) (life context.Context, end func()) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-rt.Draining():
			cancel()
		case <-life.Done():
		}
	})
	return life, func() { cancel(); wg.Wait() }
}

// watch ends ctx when run -f is gone.
func (p *pair) watch(ctx context.Context, stop func()) (unwatch func()) {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		select {
		case <-p.gone:
			stop()
		case <-ctx.Done():
		}
	})
	return func() { cancel(); wg.Wait() }
}

// about is what others find out about this instance.
func (p *pair) about() instances.Instance {
	i := p.c.instance()
	i.Command = strings.Join(p.words, " ")
	i.RunFile, i.Runner = p.orders.RunFile, p.orders.Runner
	i.AppLog, i.Log = absolute(p.app.path()), absolute(p.own.path())
	return i
}

func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil && path != "" {
		return full
	}
	return path
}

// start starts the user's command. When life ends it is asked to stop and, after
// the grace period, killed.
func (p *pair) start(life context.Context) (*exec.Cmd, error) {
	c := p.c
	cmd := exec.CommandContext(life, p.words[0], p.words[1:]...)
	cmd.Env = append(os.Environ(),
		fmt.Sprintf("DAPR_HTTP_PORT=%d", c.HTTPPort), fmt.Sprintf("DAPR_HTTP_ENDPOINT=http://127.0.0.1:%d", c.HTTPPort),
		fmt.Sprintf("DAPR_GRPC_PORT=%d", c.GRPCPort), fmt.Sprintf("DAPR_GRPC_ENDPOINT=http://127.0.0.1:%d", c.GRPCPort),
		"APP_ID="+c.AppID, "APP_PROTOCOL="+c.protocol(), "APP_CHANNEL_ADDRESS="+c.AppChannelAddress)
	if c.AppPort > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("APP_PORT=%d", c.AppPort))
	}
	for name, value := range p.orders.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = p.app, p.app
	cmd.Cancel = func() error { return signalGroup(cmd.Process, syscall.SIGTERM) }
	cmd.WaitDelay = c.grace()
	inOwnGroup(cmd)
	return cmd, fault.Wrap(cmd.Start(), "run app %s", p.words[0])
}

// wait returns when the app has ended, and all that it has started. asked ends
// with the first signal, ctx with whatever is a reason to stop.
func (p *pair) wait(asked, ctx context.Context, cmd *exec.Cmd) error {
	ended := make(chan struct{})
	var watch sync.WaitGroup
	h := listen(asked)
	watch.Go(func() { p.endAtOnce(ctx, h, cmd.Process, ended) })
	err := cmd.Wait()
	// What the app has started and left behind would keep its ports. That
	// there is nothing left is no news.
	_ = signalGroup(cmd.Process, syscall.SIGKILL)
	close(ended)
	watch.Wait()
	if ctx.Err() != nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil // we ended it, or what it left behind
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		fmt.Fprintf(p.app, "ended: %v\n", e)
		return exitCode(max(1, e.ExitCode()))
	}
	return fault.Wrap(err, "run app %s", p.words[0])
}

// grace is how long the app may take to end; zero is the default, as for the
// events under way.
func (f *serveFlags) grace() time.Duration {
	if f.GracefulShutdownSeconds <= 0 {
		return 5 * time.Second
	}
	return time.Duration(f.GracefulShutdownSeconds) * time.Second
}

// endAtOnce kills the app and this process on a signal that comes after the one
// that has ended ctx, or when run -f is gone by then: the app has a group of its
// own, and the terminal does not reach it.
func (p *pair) endAtOnce(ctx context.Context, h *hurry, app *os.Process, ended <-chan struct{}) {
	if h.wait(ctx, ended, p.insisted) {
		_ = signalGroup(app, syscall.SIGKILL) // there is no time left to tell
		os.Exit(1)
	}
}

// hurry tells a signal from the one before, which has ended asked. It listens
// from the start: between two listeners a signal would be lost, or end this
// process and leave the app behind.
type hurry struct {
	asked   context.Context
	signals chan os.Signal
	late    bool // the first signal came before we listened
}

func listen(asked context.Context) *hurry {
	h := &hurry{asked: asked, signals: make(chan os.Signal, 2)}
	signal.Notify(h.signals, os.Interrupt, syscall.SIGTERM)
	h.late = asked.Err() != nil
	return h
}

// wait waits for a signal after the one that has ended ctx, or for what also
// returns by then, and tells whether it came before ended.
func (h *hurry) wait(ctx context.Context, ended <-chan struct{}, also func() <-chan struct{}) bool {
	defer signal.Stop(h.signals)
	select {
	case <-ctx.Done():
	case <-ended:
		return false
	}
	if h.asked.Err() != nil && !h.late {
		select {
		case <-h.signals: // the first
		case <-ended:
			return false
		}
	}
	select {
	case <-h.signals:
	case <-also():
	case <-ended:
		return false
	}
	return true
}

// insisted is closed when run -f goes while the app is ending; that it was gone
// before is what has ended the app, and no reason to hurry.
func (p *pair) insisted() <-chan struct{} {
	select {
	case <-p.gone:
		return nil
	default:
		return p.gone
	}
}

// ignored names the flags of serve that were given and do not count with a run
// file.
func (c *runCommand) ignored(line *kong.Context) []string {
	var names []string
	for _, e := range line.Path {
		if e.Flag != nil && !slices.Contains([]string{"run-file", "strict"}, e.Flag.Name) {
			names = append(names, "--"+e.Flag.Name)
		}
	}
	return names
}
