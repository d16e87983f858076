package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
)

// maxRunFile bounds a run file on standard input.
const maxRunFile = 4 << 20

// runAll starts every app of a run file, each with a Penstock of its own beside
// it, and returns when all have ended. One that ends by itself, or cannot be
// started, is told and leaves the others alone. A signal ends all of them, a
// second one at once; nothing is left behind. The exit code is 1 when an app has
// failed.
func (c *runCommand) runAll(ctx context.Context, std *stdio, line *kong.Context) error {
	if len(c.Command) > 0 {
		return fault.New(fault.Invalid, "run: both a run file and a command; write the command into the file, or leave out --run-file")
	}
	file, err := c.readRunFile(std)
	if err != nil {
		return err
	}
	g := &gang{file: file, std: std, names: names(file.Apps), own: instances.Of(os.Getpid())}
	if names := c.ignored(line); len(names) > 0 {
		g.say("ignored with --run-file, say it in the file: %s", strings.Join(names, " "))
	}
	if len(file.Unused) > 0 {
		g.say("accepted and not needed: %s", strings.Join(file.Unused, ", "))
	}
	if err := g.choosePorts(); err != nil {
		return err
	}
	return g.run(ctx)
}

// readRunFile reads the file and looks whether its programs are there.
func (c *runCommand) readRunFile(std *stdio) (file config.RunFile, err error) {
	var problems config.Problems
	if c.RunFile == "-" {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, maxRunFile))
		if err != nil {
			return file, fault.Wrap(err, "read run file")
		}
		here, err := os.Getwd()
		if err != nil {
			return file, fault.Wrap(err, "read run file")
		}
		file, problems = config.ParseRunFile("-", here, text)
	} else {
		file, problems = config.LoadRunFile(c.RunFile)
	}
	for _, a := range file.Apps {
		if err := findProgram(a); err != nil {
			problems = append(problems, config.Problem{Place: a.Place, Text: err.Error(), Cause: err})
		}
	}
	errs, warnings := problems.Split(c.Strict)
	for _, w := range warnings {
		fmt.Fprintf(std.err, "penstock: warning: %s\n", w)
	}
	return file, errs.Err()
}

// findProgram looks for an app's program as its start will: names with a slash
// start at its folder.
func findProgram(a config.RunApp) error {
	if len(a.Command) == 0 || a.Dir == "" {
		return nil
	}
	name := a.Command[0]
	if strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		name = filepath.Join(a.Dir, name)
	}
	_, err := exec.LookPath(name)
	return fault.Wrap(err, "find program of app %s", a.ID)
}

// gang is the apps of one run file.
type gang struct {
	file   config.RunFile
	std    *stdio
	names  []string // of the apps, each another
	own    instances.Process
	lock   sync.Mutex // of both outputs
	failed bool       // under lock
}

// names are the app ids, numbered where several apps have the same one.
func names(apps []config.RunApp) []string {
	list := make([]string, 0, len(apps))
	for _, a := range apps {
		name := a.ID
		for n := 2; slices.Contains(list, name) || name != a.ID && slices.ContainsFunc(apps, func(o config.RunApp) bool { return o.ID == name }); n++ {
			name = a.ID + "-" + strconv.Itoa(n)
		}
		list = append(list, name)
	}
	return list
}

// choosePorts gives a free port to each API that has none: the defaults are for
// one app alone.
func (g *gang) choosePorts() error {
	ports, err := freePorts(3 * len(g.file.Apps))
	if err != nil {
		return err
	}
	for i := range g.file.Apps {
		a := &g.file.Apps[i]
		a.HTTPPort = cmp.Or(a.HTTPPort, ports[3*i])
		a.GRPCPort = cmp.Or(a.GRPCPort, ports[3*i+1])
		if slices.Contains(a.Flags, config.RunFlag{Name: "enable-profiling", Value: "true"}) &&
			!slices.ContainsFunc(a.Flags, func(f config.RunFlag) bool { return f.Name == "profile-port" }) {
			a.Flags = append(a.Flags, config.RunFlag{Name: "profile-port", Value: strconv.Itoa(ports[3*i+2])})
		}
	}
	return nil
}

// own is the name in front of what run -f itself says, beside what follows an
// app's name in front of what its Penstock says.
const (
	own    = "penstock"
	beside = "/" + own
)

// label is what stands before a line on the terminal.
func (g *gang) label(name string) string {
	width := len(own)
	for i, n := range g.names {
		width = max(width, len(n))
		if g.file.Apps[i].Log.Console {
			width = max(width, len(n+beside))
		}
	}
	return fmt.Sprintf("%-*s | ", width, name)
}

func (g *gang) say(format string, args ...any) {
	g.lock.Lock()
	defer g.lock.Unlock()
	fmt.Fprintf(g.std.out, g.label(own)+format+"\n", args...)
}

// run starts all apps and waits for them. A second signal takes their standard
// input away, which ends them at once.
func (g *gang) run(asked context.Context) error {
	ctx, stop := signal.NotifyContext(asked, syscall.SIGHUP)
	defer stop()
	hurry := make(chan struct{})
	var all, watch sync.WaitGroup
	ended := make(chan struct{})
	again := listen(asked)
	watch.Go(func() {
		if again.wait(ctx, ended, func() <-chan struct{} { return nil }) {
			close(hurry)
		}
	})
	for i, a := range g.file.Apps {
		all.Go(func() { g.one(ctx, g.names[i], a, hurry) })
	}
	all.Wait()
	close(ended)
	watch.Wait()
	if g.failed {
		return exitCode(1)
	}
	return nil
}

// one runs one app until it has ended.
func (g *gang) one(ctx context.Context, name string, a config.RunApp, hurry <-chan struct{}) {
	err := g.start(ctx, name, a, hurry)
	select {
	case <-hurry:
		err = cmp.Or(err, error(exitCode(1)))
	default:
	}
	if err == nil {
		g.say("%s has ended", name)
		return
	}
	g.lock.Lock()
	g.failed = true
	g.lock.Unlock()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
		g.say("%s has ended with exit code %d", name, e.ExitCode())
		return
	}
	g.say("%s has failed: %v", name, err)
}

// start starts `penstock run` for one app and returns when it has ended. It
// looks after the app: both have groups of their own, so that what comes from
// the terminal reaches this process alone.
func (g *gang) start(ctx context.Context, name string, a config.RunApp, hurry <-chan struct{}) error {
	self, err := os.Executable()
	if err != nil {
		return fault.Wrap(err, "find penstock's own program")
	}
	o := g.orders(name, a)
	first, err := json.Marshal(o)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, flags(name, a)...)
	cmd.Args[0] = own
	cmd.Dir = a.Dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	inOwnGroup(cmd)
	said, lost := &prefixed{w: g.std.out, lock: &g.lock}, &prefixed{w: g.std.err, lock: &g.lock, prefix: g.label(own)}
	cmd.Stdout, cmd.Stderr = said, lost
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := in.Write(append(first, '\n')); err != nil {
		g.say("%s: %v", name, err) // it has ended already; its exit code says more
	}
	g.say("%s: HTTP port %d, gRPC port %d%s", name, a.HTTPPort, a.GRPCPort, logsOf(o))
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { cutShort(cmd.Process, in, hurry, ended) })
	err = cmd.Wait()
	close(ended)
	watch.Wait()
	said.flush()
	lost.flush()
	if errors.Is(err, context.Canceled) { // we have asked it to end, and it has
		return nil
	}
	return err
}

func logsOf(o orders) string {
	if file := cmp.Or(o.App.File, o.Own.File); file != "" {
		return ", logs in " + filepath.Dir(file)
	}
	return ""
}

// hurryTime is how long a process that was asked to end at once may take.
const hurryTime = 2 * time.Second

// cutShort ends a process at once when there is hurry.
func cutShort(p *os.Process, in io.Closer, hurry, ended <-chan struct{}) {
	select {
	case <-hurry:
	case <-ended:
		return
	}
	_ = in.Close() // it then kills its app and ends
	t := time.NewTimer(hurryTime)
	defer t.Stop()
	select {
	case <-t.C:
		_ = signalGroup(p, syscall.SIGKILL)
	case <-ended:
	}
}

// orders are what `penstock run` is told besides flags.
func (g *gang) orders(name string, a config.RunApp) orders {
	o := orders{Env: maps.Clone(a.Env), RunFile: g.file.File, Runner: g.own}
	app, log := logNames(filepath.Join(a.Dir, ".dapr", "logs"), name, time.Now())
	o.App, o.Own = logOrder{Console: a.AppLog.Console, Prefix: g.label(name)}, logOrder{Console: a.Log.Console, Prefix: g.label(name + beside)}
	if a.AppLog.File && len(a.Command) > 0 {
		o.App.File = app
	}
	if a.Log.File {
		o.Own.File = log
	}
	return o
}

// flags are those of `penstock run` for one app. Embedded storage is kept apart,
// because processes cannot share it.
func flags(name string, a config.RunApp) []string {
	data := cmp.Or(os.Getenv("PENSTOCK_DATA_DIR"), filepath.Join(a.Dir, ".penstock"))
	if full, err := filepath.Abs(data); err == nil {
		data = full
	}
	args := []string{
		"run", "--supervised", "--app-id=" + a.ID, fmt.Sprintf("--app-port=%d", a.Port),
		fmt.Sprintf("--dapr-http-port=%d", a.HTTPPort), fmt.Sprintf("--dapr-grpc-port=%d", a.GRPCPort),
		"--data-dir=" + filepath.Join(data, name),
	}
	for _, path := range a.Resources {
		args = append(args, "--resources-path="+path)
	}
	if a.Config != "" {
		args = append(args, "--config="+a.Config)
	}
	for _, f := range a.Flags {
		args = append(args, "--"+f.Name+"="+f.Value)
	}
	return append(append(args, "--"), a.Command...)
}
