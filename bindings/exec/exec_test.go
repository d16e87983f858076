package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const helperFlag = "penstock-exec-helper"

// TestMain makes the test binary the program that the tests run: with the flag
// as first argument it acts instead of testing.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == helperFlag {
		helper(os.Args[2], os.Args[3:])
		return
	}
	goleak.VerifyTestMain(m)
}

func helper(what string, args []string) {
	switch what {
	case "cat":
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "args":
		text, _ := json.Marshal(args)
		fmt.Printf("%s", text)
	case "env":
		fmt.Print(strings.Join(os.Environ(), "\n"))
	case "dir":
		dir, _ := os.Getwd()
		fmt.Print(dir)
	case "exit":
		code, _ := strconv.Atoi(args[0])
		fmt.Fprint(os.Stderr, strings.Repeat("noise ", 1000)+"the reason\n")
		os.Exit(code)
	case "flood":
		for {
			if _, err := os.Stdout.WriteString(strings.Repeat("x", 4096)); err != nil {
				select {}
			}
		}
	case "hang":
		fmt.Println("started")
		<-time.After(time.Hour)
	case "child": // leaves a child that holds the output open
		child := osexec.Command(os.Args[0], helperFlag, "hang")
		child.Stdout = os.Stdout
		_ = child.Start()
		_ = os.WriteFile(args[0], []byte(strconv.Itoa(child.Process.Pid)), 0o600)
		if len(args) > 1 {
			_ = child.Wait()
		}
	}
}

func defaults(t *testing.T) options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return options{Commands: []string{self}, Timeout: 20 * time.Second, MaxOutput: 1 << 20, Concurrency: 4}
}

func opened(t *testing.T, o options) *binding {
	t.Helper()
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	d, err := open(t.Context(), component.Env{}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*binding)
}

func call(t *testing.T, ctx context.Context, b *binding, data string, args ...string) (string, error) {
	t.Helper()
	text, err := json.Marshal(append([]string{helperFlag}, args...))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.Invoke(ctx, &bindings.Request{Operation: "exec", Data: []byte(data), Metadata: map[string]string{"args": string(text)}})
	if err != nil {
		return "", err
	}
	return string(resp.Data), nil
}

func TestRun(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, data string
		args       []string
		want       string
	}{
		{"data is the input and the output the answer", "in\x00\xff", []string{"cat"}, "in\x00\xff"},
		{"no data", "", []string{"cat"}, ""},
		{"a lot of it", strings.Repeat("0123456789abcdef", 1<<16), []string{"cat"}, strings.Repeat("0123456789abcdef", 1<<16)},
		{"no shell looks at arguments", "", []string{"args", "a b", "$HOME", "`id`", ";", "*", ""}, `["a b","$HOME","` + "`id`" + `",";","*",""]`},
		{"no environment", "", []string{"env"}, ""},
		{"work folder", "", []string{"dir"}, dir},
		{"input that nobody reads", strings.Repeat("x", 1<<20), []string{"args"}, "[]"},
	}
	o := defaults(t)
	o.WorkDir = dir
	b := opened(t, o)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := call(t, t.Context(), b, row.data, row.args...)
			if row.args[0] == "dir" {
				got = strings.TrimSpace(got)
			}
			if err != nil || got != row.want {
				t.Fatalf("%.100q, %v; want %.100q", got, err, row.want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) { // sets variables, so not in parallel
	t.Setenv("PSTEST_SEEN", "yes")
	t.Setenv("PSTEST_HIDDEN", "no")
	o := defaults(t)
	o.Env = []string{"PSTEST_SEEN", "PSTEST_NOT_SET"}
	if got, err := call(t, t.Context(), opened(t, o), "", "env"); err != nil || got != "PSTEST_SEEN=yes" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	rows := []struct {
		name   string
		ctx    context.Context
		change func(*options)
		args   []string
		kind   fault.Kind
		want   string
	}{
		{name: "exit 1", args: []string{"exit", "1"}, kind: fault.Internal, want: `exit status 1; it wrote ..."`},
		{name: "exit 64", args: []string{"exit", "64"}, kind: fault.Invalid, want: `the reason"`},
		{name: "exit 65", args: []string{"exit", "65"}, kind: fault.Invalid},
		{name: "exit 69", args: []string{"exit", "69"}, kind: fault.Unavailable},
		{name: "exit 75", args: []string{"exit", "75"}, kind: fault.Unavailable},
		{name: "exit 77", args: []string{"exit", "77"}, kind: fault.Denied},
		{name: "too slow", args: []string{"hang"}, change: func(o *options) { o.Timeout = 300 * time.Millisecond }, kind: fault.Timeout, want: "not done within 300ms"},
		{name: "writes without end", args: []string{"flood"}, kind: fault.Invalid, want: "maxOutput"},
		{name: "cancelled", ctx: cancelled, args: []string{"cat"}, kind: fault.Unavailable},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := defaults(t)
			if row.change != nil {
				row.change(&o)
			}
			ctx := row.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			_, err := call(t, ctx, opened(t, o), "", row.args...)
			if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.want) || len(err.Error()) > 2*stderrTail {
				t.Fatalf("%v of kind %v; want %q of kind %v", err, fault.KindOf(err), row.want, row.kind)
			}
		})
	}
}

// gone waits until the process whose id stands in the file is no more.
func gone(t *testing.T, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		state, err := os.ReadFile(filepath.Join("/proc", string(text), "stat"))
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
	}
	t.Fatalf("process %s is still there", text)
}

func TestChildrenAreEnded(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc")
	}
	dir := t.TempDir()
	o := defaults(t)
	left := filepath.Join(dir, "left")
	if _, err := call(t, t.Context(), opened(t, o), "", "child", left); err != nil {
		t.Errorf("a program that leaves a child: %v", err)
	}
	gone(t, left)
	o.Timeout = 500 * time.Millisecond
	late := filepath.Join(dir, "late")
	if _, err := call(t, t.Context(), opened(t, o), "", "child", late, "wait"); fault.KindOf(err) != fault.Timeout {
		t.Errorf("a program that waits for its child: %v", err)
	}
	gone(t, late)
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	o := defaults(t)
	o.Concurrency = 2
	b := opened(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var ended atomic.Int32
	for range 6 {
		wg.Go(func() {
			if _, err := call(t, ctx, b, "", "hang"); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("cancelled call: %v", err)
			}
			ended.Add(1)
		})
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(b.slots) < 2 {
		<-tick.C
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := call(t, short, b, "", "cat"); fault.KindOf(err) != fault.Timeout {
		t.Errorf("call while all slots are taken: %v", err)
	}
	if n := ended.Load(); n != 0 {
		t.Errorf("%d calls ended before they were cancelled", n)
	}
	cancel()
	wg.Wait()
}

func TestCloseEndsPrograms(t *testing.T) {
	t.Parallel()
	b := opened(t, defaults(t))
	failed := make(chan error)
	go func() {
		_, err := call(t, t.Context(), b, "", "hang")
		failed <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(b.slots) == 0 {
		<-tick.C
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-failed; fault.KindOf(err) != fault.Unavailable {
		t.Errorf("call during Close: %v", err)
	}
	if _, err := call(t, t.Context(), b, "", "cat"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("call after Close: %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	o := defaults(t)
	o.Commands = append(o.Commands, "sh")
	b := opened(t, o)
	rows := []struct {
		name, operation string
		meta            map[string]string
		kind            fault.Kind
	}{
		{"operation", "create", nil, fault.Invalid},
		{"no command of two", "exec", nil, fault.Invalid},
		{"not on the list", "exec", map[string]string{"command": "id"}, fault.Denied},
		{"path of a listed name", "exec", map[string]string{"command": b.paths["sh"]}, fault.Denied},
		{"name of a listed path", "exec", map[string]string{"command": filepath.Base(o.Commands[0])}, fault.Denied},
		{"with arguments", "exec", map[string]string{"command": "sh -c id"}, fault.Denied},
		{"args no JSON", "exec", map[string]string{"command": "sh", "args": "-c id"}, fault.Invalid},
		{"args no strings", "exec", map[string]string{"command": "sh", "args": "[1]"}, fault.Invalid},
		{"args with null", "exec", map[string]string{"command": "sh", "args": "[null]"}, fault.Invalid},
		{"args with a zero byte", "exec", map[string]string{"command": "sh", "args": `["\u0000"]`}, fault.Invalid},
		{"many args", "exec", map[string]string{"command": "sh", "args": "[" + strings.Repeat(`"",`, maxArgs) + `""]`}, fault.Invalid},
		{"long args", "exec", map[string]string{"command": "sh", "args": `["` + strings.Repeat("x", maxArgsSize) + `"]`}, fault.Invalid},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := b.Invoke(t.Context(), &bindings.Request{Operation: row.operation, Metadata: row.meta})
			if err == nil || fault.KindOf(err) != row.kind {
				t.Fatalf("%v of kind %v, want kind %v", err, fault.KindOf(err), row.kind)
			}
		})
	}
}

func TestCheckAndOpen(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		change func(*options)
		want   string
	}{
		{"good", func(*options) {}, ""},
		{"no command", func(o *options) { o.Commands = nil }, `"commands": names no program`},
		{"empty name", func(o *options) { o.Commands = []string{""} }, `"commands": has an empty name`},
		{"relative path", func(o *options) { o.Commands = []string{"./x"} }, `neither a name nor an absolute path`},
		{"twice", func(o *options) { o.Commands = []string{"sh", "sh"} }, `"sh" stands twice`},
		{"token", func(o *options) { o.Env = []string{"dapr_api_token"} }, `dapr_api_token is not given`},
		{"no time", func(o *options) { o.Timeout = 0 }, `"timeout"`},
		{"no output", func(o *options) { o.MaxOutput = 0 }, `"maxOutput"`},
		{"no slot", func(o *options) { o.Concurrency = 0 }, `"concurrency"`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := defaults(t)
			row.change(&o)
			err := o.Check()
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Fatalf("Check: %v, want %q", err, row.want)
			}
		})
	}
	for _, name := range []string{"no-such-program-at-all", "/no/such/program"} {
		o := defaults(t)
		o.Commands = []string{name}
		if _, err := open(t.Context(), component.Env{}, o); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), name) {
			t.Errorf("open with %s: %v", name, err)
		}
	}
}

func FuzzArgs(f *testing.F) {
	for _, seed := range []string{"", "[]", `["a"]`, `[null]`, `{}`, `"a"`, `["\u0000"]`, `[["a"]]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args, err := parseArgs(text)
		if err == nil && (len(args) > maxArgs || strings.ContainsRune(strings.Join(args, ""), 0)) {
			t.Fatalf("took %q as %q", text, args)
		}
	})
}
