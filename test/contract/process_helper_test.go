package contract

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/process"
)

// binary is the penstock that is tested.
var binary string

func TestMain(m *testing.M) { os.Exit(process.Main(m.Run, &binary)) }

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// lines is the log of a process, which may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// setup is what a sidecar is started with beside the flags every one has.
type setup struct {
	id        string // app id; empty: shop
	app       int    // port of the app; 0: none
	resources string // YAML
	config    string // a Configuration document
	dir       string // folder of the resources and data; empty: a fresh one
	flags     []string
	env       []string
	starting  bool // do not wait until it is ready
}

// sidecar is a running penstock.
type sidecar struct {
	api   string // "http://127.0.0.1:PORT/v1.0"
	dir   string
	log   *lines
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
}

// start runs a sidecar until the test ends. A process that the test did not
// end itself must stop cleanly on SIGTERM.
func start(t *testing.T, s setup) *sidecar {
	t.Helper()
	sc := launch(t, s)
	sc.api = "http://" + sc.address(t, "HTTP server listening") + "/v1.0"
	if !s.starting {
		eventually(t, "penstock is ready", func() bool {
			sc.alive(t)
			return get(t, sc.api+"/healthz").status == 204
		})
	}
	return sc
}

// launch starts the process and waits for nothing.
func launch(t *testing.T, s setup) *sidecar {
	t.Helper()
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	if s.id == "" {
		s.id = "shop"
	}
	resources := filepath.Join(s.dir, "resources")
	write(t, filepath.Join(resources, "all.yaml"), strings.ReplaceAll(s.resources, "DIR", s.dir))
	args := []string{
		"serve", "--app-id", s.id, "--dapr-http-port", "0", "--dapr-grpc-port", "0",
		"--resources-path", resources, "--data-dir", filepath.Join(s.dir, "data"),
	}
	if s.app != 0 {
		args = append(args, "--app-port", fmt.Sprint(s.app))
	}
	if s.config != "" {
		file := filepath.Join(s.dir, "config.yaml")
		write(t, file, s.config)
		args = append(args, "--config", file)
	}
	sc := &sidecar{dir: s.dir, log: &lines{}, ended: make(chan struct{})}
	sc.cmd = exec.Command(binary, append(args, s.flags...)...)
	sc.cmd.Env = append([]string{}, s.env...) // some tooling gives almost nothing
	sc.cmd.Stdout, sc.cmd.Stderr = sc.log, sc.log
	if err := sc.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(sc.ended)
		sc.cmd.Wait() // the code is asked for by exit
	}()
	t.Cleanup(func() { sc.cleanUp(t) })
	return sc
}

func (sc *sidecar) cleanUp(t *testing.T) {
	select {
	case <-sc.ended:
	default:
		sc.signal(t, syscall.SIGTERM)
		if code := sc.exit(t); code != 0 {
			t.Errorf("penstock ended with %d after SIGTERM", code)
		}
	}
	if t.Failed() {
		t.Logf("log of penstock:\n%s", sc.log)
	}
}

func (sc *sidecar) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := sc.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the end of the process and returns its code.
func (sc *sidecar) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-sc.ended:
	case <-time.After(patience):
		sc.cmd.Process.Kill()
		<-sc.ended
		t.Error("penstock did not end")
	}
	return sc.cmd.ProcessState.ExitCode()
}

// address returns the address in the log line of a server.
func (sc *sidecar) address(t *testing.T, line string) string {
	t.Helper()
	pattern := regexp.MustCompile(regexp.QuoteMeta(line) + `.* address=(\S+)`)
	sc.logged(t, pattern)
	return pattern.FindStringSubmatch(sc.log.String())[1]
}

// logged waits until the log has a line like that.
func (sc *sidecar) logged(t *testing.T, pattern *regexp.Regexp) {
	t.Helper()
	eventually(t, "log line "+pattern.String(), func() bool {
		if pattern.MatchString(sc.log.String()) {
			return true
		}
		sc.alive(t)
		return false
	})
}

// alive ends the test when the process has ended.
func (sc *sidecar) alive(t *testing.T) {
	t.Helper()
	select {
	case <-sc.ended:
		t.Fatalf("penstock ended with %d:\n%s", sc.cmd.ProcessState.ExitCode(), sc.log)
	default:
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually polls for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}
