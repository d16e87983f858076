package walkthrough

import (
	"bytes"
	"context"
	"fmt"
	"go/format"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/port"
)

const (
	root = "../.."
	page = "docs/writing-a-component.md"
	list = "all/all.go"
)

// TestWalkthrough does what docs/writing-a-component.md says, in a copy of the
// project.
func TestWalkthrough(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	files, diff := blocks(string(text))
	for _, path := range []string{"bindings/echo/echo.go", "bindings/echo/echo_test.go", "resources/echo.yaml"} {
		if files[path] == "" {
			t.Fatalf("%s has no code block for %s", page, path)
		}
	}
	dir := copyProject(t)
	for path, code := range files {
		if strings.HasSuffix(path, ".go") {
			formatted(t, path, code)
		}
		write(t, filepath.Join(dir, path), code)
	}
	amend(t, filepath.Join(dir, list), diff)

	run(t, dir, "go", "vet", "./bindings/echo", "./all")
	if out := run(t, dir, "go", "test", "-count=1", "./bindings/echo"); !strings.Contains(out, "ok") {
		t.Errorf("go test says %q", out)
	}
	run(t, dir, "go", "build", "-o", "penstock", "./cmd/penstock")
	if out := run(t, dir, "./penstock", "describe"); !slices.Contains(strings.Fields(out), "bindings.echo/v1") {
		t.Errorf("describe does not list bindings.echo/v1:\n%s", out)
	}
	out := run(t, dir, "./penstock", "describe", "bindings.echo")
	for _, want := range []string{"Answers with what it was sent", "maxSize", "4Mi", "create"} {
		if !strings.Contains(out, want) {
			t.Errorf("describe bindings.echo does not say %q:\n%s", want, out)
		}
	}
	run(t, dir, "./penstock", "check", "resources")
	answers(t, dir)
}

var (
	fileBlock = regexp.MustCompile("(?m)^`([a-z_/]+\\.(?:go|yaml))`:\n\n```(go|yaml)\n((?s:.*?))^```$")
	diffBlock = regexp.MustCompile("(?m)^`" + list + "`:\n\n```diff\n((?s:.*?))^```$")
)

// blocks returns the files that a page shows, by path, and the change to the
// list.
func blocks(text string) (files map[string]string, diff string) {
	files = map[string]string{}
	for _, m := range fileBlock.FindAllStringSubmatch(text, -1) {
		files[m[1]] = m[3]
	}
	if m := diffBlock.FindStringSubmatch(text); m != nil {
		diff = m[1]
	}
	return files, diff
}

// formatted fails for code that is not formatted as the project's is.
func formatted(t *testing.T, path, code string) {
	t.Helper()
	want, err := format.Source([]byte(code))
	if err != nil {
		t.Fatalf("%s shows a %s that is not Go: %v", page, path, err)
	}
	if string(want) != code {
		t.Errorf("%s shows a %s that is not formatted", page, path)
	}
}

// amend adds each line marked + after the line that stands before it.
func amend(t *testing.T, path, diff string) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines, added := strings.Split(string(src), "\n"), 0
	before := ""
	for line := range strings.SplitSeq(diff, "\n") {
		text, isNew := strings.CutPrefix(line, "+")
		if !isNew {
			before = strings.TrimPrefix(line, " ")
			continue
		}
		at := slices.Index(lines, before)
		if at < 0 {
			t.Fatalf("%s has no line %q, after which %s adds %q", list, before, page, text)
		}
		lines = slices.Insert(lines, at+1, text)
		before = text
		added++
	}
	if added != 2 {
		t.Fatalf("%s adds %d lines to %s, want the import and the entry", page, added, list)
	}
	write(t, path, strings.Join(lines, "\n"))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// copyProject copies what building the program and running the suites takes:
// the module files, the Go files without tests, and the page of the console.
func copyProject(t *testing.T) string {
	t.Helper()
	dir, copied := t.TempDir(), 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			return enter(path, rel, d.Name())
		}
		isModule := rel == "go.mod" || rel == "go.sum"
		isSource := strings.HasSuffix(rel, ".go") && !strings.HasSuffix(rel, "_test.go")
		isPage := strings.HasPrefix(rel, "console/dist/") // it is part of the program
		if !isModule && !isSource && !isPage {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		write(t, filepath.Join(dir, rel), string(text))
		copied++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if copied < 50 {
		t.Fatalf("only %d files copied", copied)
	}
	return dir
}

// enter leaves out what is not built: hidden folders, other modules, examples,
// and the tests beside the suites.
func enter(path, rel, name string) error {
	switch {
	case rel == "." || rel == "test" || rel == "test/conform":
		return nil
	case strings.HasPrefix(rel, "test/"), rel == "examples", rel == "docs",
		strings.HasPrefix(name, "."), name == "testdata", name == "node_modules":
		return fs.SkipDir
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	if err == nil {
		return fs.SkipDir
	}
	return nil
}

// run runs a command in the copy and returns what it printed.
func run(t *testing.T, dir string, words ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS="+os.Getenv("GOFLAGS")+" -mod=readonly", "GOPROXY=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// answers starts the program with the page's resource and invokes the binding.
func answers(t *testing.T, dir string) {
	t.Helper()
	port := freePort(t)
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var log bytes.Buffer
	serve := exec.CommandContext(ctx, "./penstock", "serve", "--app-id", "demo", "--resources-path", "resources", "--dapr-http-port", port, "--dapr-grpc-port", "0")
	serve.Dir, serve.Stdout, serve.Stderr = dir, &log, &log
	serve.Cancel = func() error { return serve.Process.Signal(syscall.SIGTERM) }
	serve.WaitDelay = 10 * time.Second
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	got, err := invoke(ctx, "http://127.0.0.1:"+port+"/v1.0/bindings/echo")
	stop()
	_ = serve.Wait() // how it ends is other tests' business
	if err != nil || got != "you said: hello" {
		t.Errorf("the binding answers %q (%v), want %q; the log:\n%s", got, err, "you said: hello", log.String())
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(p)
}

// invoke calls the binding until it answers; the program has to start first.
func invoke(ctx context.Context, url string) (string, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := post(ctx, url)
		if err == nil {
			return answer, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", err
		}
	}
}

func post(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"operation":"create","data":"hello"}`))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return string(body), err
}
