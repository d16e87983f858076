package crash

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/port"
	"github.com/penstock-io/penstock/test/process"
)

// full runs the stories at full length: fifty kills, thirty reloads.
var full = flag.Bool("full", false, "full length")

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(process.Main(m.Run, &binary))
}

// sidecar is a penstock with a broker, a webhook and a folder.
type sidecar struct {
	process.Sidecar

	t         *testing.T
	dir       string // of resources
	data      string
	inbox     string
	hook      string // URL of the webhook
	resources string
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
	}
	s.Path, s.Port = binary, freePort(t)
	s.Args = []string{
		"serve", "--app-id", "crash", "--app-port", fmt.Sprint(appPort), "--dapr-http-port", fmt.Sprint(s.Port), "--dapr-grpc-port", "0",
		"--resources-path", s.dir, "--data-dir", s.data,
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
		s.Kill()
		if t.Failed() {
			log := s.Log()
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

// start runs penstock, with more arguments, and returns when it is ready.
func (s *sidecar) start(more ...string) {
	s.t.Helper()
	s.Args = append(s.Args, more...)
	if err := s.Start(15 * time.Second); err != nil {
		s.t.Fatal(err)
	}
}

// memory is the resident memory in MB.
func (s *sidecar) memory() float64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
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

// stop ends penstock with SIGTERM and wants a clean end.
func (s *sidecar) stop() {
	s.t.Helper()
	if err := s.Stop(time.Minute); err != nil {
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
