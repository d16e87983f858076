// Package exec is the output binding that runs programs of this machine.
//
// Configure it as bindings.exec with the list of programs that may be run. The
// one operation, exec, runs the program named by the metadata command with the
// arguments in the metadata args (a JSON array of strings); the data is its
// standard input, its standard output is the answer.
//
// It promises that no shell is involved and no program outside the list is
// started, that a program sees only the environment variables that are listed,
// and that its whole process group is ended when it takes too long, writes too
// much or the caller gives up. What the arguments may do to a listed program is
// the business of whoever lists it. The call returns when the program ended
// with exit code 0; any other code is an error whose kind follows sysexits.h:
// 64 and 65 are Invalid, 69, 75 Unavailable, 77 Denied, all others Internal.
package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	opExec = "exec"

	maxArgs     = 256
	maxArgsSize = 128 << 10
	maxOutput   = 1 << 30
	stderrTail  = 2 << 10
	endGrace    = time.Second // between asking a program to end and making it
)

// Component is listed in package all.
var Component = bindings.Define("exec", component.About{
	Summary: "Runs programs of this machine that are on a list",
	Ack:     "A call is done when the program has ended with exit code 0; any other end is an error.",
	Order:   "None between calls; a pipeline with one lane makes one call after the other.",
	Limits:  "concurrency programs at once, output of maxOutput, 256 arguments of together 128 KiB.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: converter
spec:
  type: bindings.exec
  version: v1
  metadata:
    - name: commands
      value: pandoc,/usr/local/bin/thumbnail
    - name: timeout
      value: 20s
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   []string{opExec},
}, open)

type options struct {
	Commands    []string       `meta:"commands,required" doc:"The programs that may be run: absolute paths, or names looked up in PATH when the binding opens." example:"pandoc,/usr/local/bin/thumbnail"`
	Env         []string       `meta:"env" doc:"Names of the environment variables that programs get to see." default:"PATH"`
	WorkDir     string         `meta:"workDir" doc:"Folder that programs run in; that of the process when empty."`
	Timeout     time.Duration  `meta:"timeout" doc:"How long a program may run." default:"30s"`
	MaxOutput   component.Size `meta:"maxOutput" doc:"Longest output; a program that writes more is ended." default:"1Mi"`
	Concurrency int            `meta:"concurrency" doc:"How many programs run at once, 1 to 1000; more calls wait." default:"4"`
}

// Check refuses lists and limits that cannot work.
func (o options) Check() error {
	var errs []error
	if len(o.Commands) == 0 {
		errs = append(errs, component.OptionErrorf("commands", "names no program"))
	}
	for i, c := range o.Commands {
		switch {
		case c == "":
			errs = append(errs, component.OptionErrorf("commands", "has an empty name"))
		case strings.ContainsAny(c, `/\`) && !filepath.IsAbs(c):
			errs = append(errs, component.OptionErrorf("commands", "%q is neither a name nor an absolute path", c))
		case slices.Contains(o.Commands[:i], c):
			errs = append(errs, component.OptionErrorf("commands", "%q stands twice", c))
		}
	}
	for _, name := range o.Env {
		if upper := strings.ToUpper(name); upper == "APP_API_TOKEN" || strings.HasPrefix(upper, "DAPR_") || strings.HasPrefix(upper, "PENSTOCK_") {
			errs = append(errs, component.OptionErrorf("env", "%s is not given to programs", name))
		}
	}
	if o.Timeout <= 0 {
		errs = append(errs, component.OptionErrorf("timeout", "%s is not a time to run", o.Timeout))
	}
	if o.MaxOutput < 1 || o.MaxOutput > maxOutput {
		errs = append(errs, component.OptionErrorf("maxOutput", "must be between 1 and 1Gi"))
	}
	if o.Concurrency < 1 || o.Concurrency > 1000 {
		errs = append(errs, component.OptionErrorf("concurrency", "%d is not between 1 and 1000", o.Concurrency))
	}
	return errors.Join(errs...)
}

type binding struct {
	options options
	paths   map[string]string // by the name in the list
	slots   chan struct{}

	mu      sync.Mutex // guards what follows
	closed  bool
	running map[*context.CancelFunc]bool
	calls   sync.WaitGroup
}

func open(_ context.Context, _ component.Env, o options) (bindings.Driver, error) {
	b := &binding{
		options: o, paths: map[string]string{}, slots: make(chan struct{}, o.Concurrency),
		running: map[*context.CancelFunc]bool{},
	}
	for _, name := range o.Commands {
		path, err := osexec.LookPath(name)
		if err == nil && !filepath.IsAbs(path) {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, fault.New(fault.NotFound, "look up program %q: %w", name, err)
		}
		b.paths[name] = path
	}
	return b, nil
}

// Operations returns exec.
func (b *binding) Operations() []string { return []string{opExec} }

// Invoke runs one program to its end.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != opExec {
		return nil, fault.New(fault.Invalid, "run program: operation %q is not supported; use exec", r.Operation)
	}
	name, path, err := b.program(r.Metadata["command"])
	if err != nil {
		return nil, err
	}
	args, err := parseArgs(r.Metadata["args"])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !b.begin(&cancel) {
		return nil, fault.New(fault.Unavailable, "run program %s: the binding is closed", name)
	}
	defer b.end(&cancel)
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-ctx.Done():
		return nil, fault.Wrap(ctx.Err(), "wait to run program %s", name)
	}
	out, err := b.run(ctx, path, args, r.Data)
	if err != nil {
		return nil, fault.Wrap(err, "run program %s", name)
	}
	return &bindings.Response{Data: out, Metadata: map[string]string{"command": name, "exitCode": "0"}}, nil
}

// Close waits for programs that run until ctx ends, and then ends them.
func (b *binding) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	done := make(chan struct{})
	go func() {
		b.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	for cancel := range b.running {
		(*cancel)()
	}
	b.mu.Unlock()
	<-done // soon: the programs are being ended
	return nil
}

// begin counts a call in; false after Close.
func (b *binding) begin(cancel *context.CancelFunc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.running[cancel] = true
	b.calls.Add(1)
	return true
}

func (b *binding) end(cancel *context.CancelFunc) {
	b.mu.Lock()
	delete(b.running, cancel)
	b.mu.Unlock()
	b.calls.Done()
}

// program finds the program that a request names. The only one of a list need
// not be named.
func (b *binding) program(name string) (known, path string, err error) {
	if name == "" && len(b.options.Commands) == 1 {
		name = b.options.Commands[0]
	}
	path, ok := b.paths[name]
	switch {
	case name == "":
		return "", "", fault.New(fault.Invalid, "run program: metadata command is missing; use one of %s", strings.Join(b.options.Commands, ", "))
	case !ok:
		return "", "", fault.New(fault.Denied, "run program %q: it is not on the list commands", name[:min(len(name), 100)])
	}
	return name, path, nil
}

func parseArgs(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	bad := func(why string) error { return fault.New(fault.Invalid, "read metadata args: %s", why) }
	if len(text) > maxArgsSize {
		return nil, bad("more than " + strconv.Itoa(maxArgsSize) + " bytes")
	}
	var given []*string
	if err := json.Unmarshal([]byte(text), &given); err != nil {
		return nil, bad(`want a JSON array of strings such as ["-o","x"]`)
	}
	if len(given) > maxArgs {
		return nil, bad("more than " + strconv.Itoa(maxArgs) + " arguments")
	}
	args := make([]string, len(given))
	for i, a := range given {
		if a == nil || strings.ContainsRune(*a, 0) {
			return nil, bad("argument " + strconv.Itoa(i+1) + " is null or has a zero byte")
		}
		args[i] = *a
	}
	return args, nil
}

// run starts the program, waits for it and ends whatever it leaves behind.
func (b *binding) run(ctx context.Context, path string, args []string, input []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	cmd := osexec.CommandContext(ctx, path, args...)
	cmd.Dir = b.options.WorkDir
	cmd.Env = b.environment()
	cmd.Stdin = bytes.NewReader(input)
	out := &limited{limit: int(b.options.MaxOutput), full: cancel}
	last := &tail{}
	cmd.Stdout, cmd.Stderr = out, last
	cmd.WaitDelay = endGrace
	ownGroup(cmd)
	cmd.Cancel = func() error { return askToEnd(cmd) }
	if err := cmd.Start(); err != nil {
		return nil, explainStart(err)
	}
	err := cmd.Wait()
	endGroup(cmd)
	switch {
	case out.over:
		return nil, fault.New(fault.Invalid, "output is longer than maxOutput, %d bytes", out.limit)
	case err == nil, errors.Is(err, osexec.ErrWaitDelay) && cmd.ProcessState.Success() && ctx.Err() == nil:
		return out.buf.Bytes(), nil // a left-over child that kept the output open is ended by now
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fault.New(fault.Timeout, "not done within %s%s", b.options.Timeout, last)
	case ctx.Err() != nil:
		return nil, fault.Wrap(ctx.Err(), "ended early")
	}
	return nil, fault.New(exitKind(cmd.ProcessState.ExitCode()), "%w%s", err, last)
}

// environment returns the listed variables that are set.
func (b *binding) environment() []string {
	env := []string{} // not nil, which would mean all of them
	for _, name := range b.options.Env {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func explainStart(err error) error {
	kind := fault.KindOf(err)
	if kind == fault.NotFound || kind == fault.Denied {
		return fault.As(kind, err)
	}
	return fault.As(fault.Unavailable, err) // no memory, too many processes
}

func exitKind(code int) fault.Kind {
	switch code {
	case 64, 65:
		return fault.Invalid
	case 69, 75:
		return fault.Unavailable
	case 77:
		return fault.Denied
	}
	return fault.Internal
}
