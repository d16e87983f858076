package crash

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/port"
)

// full runs the stories at full length: fifty kills, thirty reloads.
var full = flag.Bool("full", false, "full length")

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(build(m))
}

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "penstock-crash")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "penstock")
	cmd := exec.Command("go", "build", "-C", "../..", "-o", binary, "./cmd/penstock")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build penstock:", err)
		return 1
	}
	return m.Run()
}

// sidecar is a penstock that can be killed and started again on the same ports
// and files.
type sidecar struct {
	t         *testing.T
	dir       string // of resources
	data      string
	inbox     string
	port      int
	hook      string // URL of the webhook
	appPort   int
	log       syncBuffer
	cmd       *exec.Cmd
	resources string
	flags     []string
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const resources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec:
  type: pubsub.sqlite
  version: v1
  metadata: [{name: connectionString, value: "%[1]s/bus.db"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: hook}
spec:
  type: bindings.webhook
  version: v1
  metadata:
    - {name: listen, value: "%[3]s"}
    - {name: answer, value: accepted}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: inbox}
spec:
  type: bindings.file
  version: v1
  metadata:
    - {name: path, value: "%[2]s"}
    - {name: mode, value: lines}
    - {name: after, value: delete}
`

func newSidecar(t *testing.T, appPort int) *sidecar {
	t.Helper()
	base := t.TempDir()
	s := &sidecar{
		t: t, dir: filepath.Join(base, "resources"), data: filepath.Join(base, "data"), inbox: filepath.Join(base, "inbox"),
		port: freePort(t), appPort: appPort,
	}
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s.hook = "http://" + listen + "/hook"
	for _, dir := range []string{s.dir, s.data, s.inbox} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.resources = fmt.Sprintf(resources, s.data, s.inbox, listen)
	s.write("resources.yaml", s.resources)
	t.Cleanup(func() {
		if s.cmd != nil && s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
		if t.Failed() {
			log := s.log.String()
			t.Logf("the end of penstock's log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	return s
}

// write puts a file into the resources folder in one step.
func (s *sidecar) write(name, text string) {
	s.t.Helper()
	tmp := filepath.Join(s.data, name+".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *sidecar) api(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d/v1.0%s", s.port, path)
}

// start runs penstock and returns when it is ready.
func (s *sidecar) start() {
	s.t.Helper()
	args := []string{
		"serve", "--app-id", "crash", "--app-port", fmt.Sprint(s.appPort), "--dapr-http-port", fmt.Sprint(s.port), "--dapr-grpc-port", "0",
		"--resources-path", s.dir, "--data-dir", s.data,
	}
	s.cmd = exec.Command(binary, append(args, s.flags...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, 15*time.Second, "penstock is ready", func() bool {
		resp, err := http.Get(s.api("/healthz"))
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusNoContent
	})
}

// memory is the resident memory in MB.
func (s *sidecar) memory() float64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kb float64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		s.t.Fatal(err)
	}
	return kb / 1000
}

func (s *sidecar) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// stop ends penstock with SIGTERM and wants a clean end.
func (s *sidecar) stop() {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("penstock ended with %v", err)
	}
}

// eventually polls for a condition.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-end.C:
			t.Fatalf("not within %v: %s", limit, what)
		case <-tick.C:
		}
	}
}
