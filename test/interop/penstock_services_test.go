//go:build services

package interop

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the built penstock; TestMain makes it.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "penstock-interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "penstock")
	build := exec.Command("go", "build", "-C", "../..", "-o", binary, "./cmd/penstock")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build penstock:", err)
		return 1
	}
	return m.Run()
}

// penstock is a running process and the app beside it.
type penstock struct {
	api    string
	events chan string // what the app got
}

// serve runs penstock with one pub/sub, and an app that takes the events of a
// topic when one is named. It returns when both are ready.
func serve(t *testing.T, b broker, addr, unique, topic string) *penstock {
	t.Helper()
	p := &penstock{events: make(chan string, 100)}
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\nspec:\n  type: %s\n  version: v1\n  metadata:\n", b.typ)
	options := b.options(addr, unique+"-penstock")
	for _, name := range slices.Sorted(maps.Keys(options)) {
		fmt.Fprintf(&yaml, "  - {name: %s, value: %q}\n", name, options[name])
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bus.yaml"), []byte(yaml.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"serve", "--app-id", "interop", "--resources-path", dir, "--data-dir", filepath.Join(dir, "data"),
		"--dapr-grpc-port", "0",
	}
	ready := "/healthz/outbound"
	if topic != "" {
		subscription := fmt.Sprintf("---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: orders}\nspec:\n  pubsubname: bus\n  topic: %s\n  routes: {default: /orders}\n", topic)
		if err := os.WriteFile(filepath.Join(dir, "subscription.yaml"), []byte(subscription), 0o600); err != nil {
			t.Fatal(err)
		}
		app := httptest.NewServer(http.HandlerFunc(p.app))
		t.Cleanup(app.Close)
		_, port, _ := strings.Cut(strings.TrimPrefix(app.URL, "http://"), ":")
		args = append(args, "--app-port", port)
		ready = "/healthz"
	}
	p.start(t, args, ready)
	return p
}

func (p *penstock) app(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/orders" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		p.events <- string(body)
	}
}

func (p *penstock) start(t *testing.T, args []string, ready string) {
	t.Helper()
	port := freePort(t)
	p.api = fmt.Sprintf("http://127.0.0.1:%d/v1.0", port)
	cmd := exec.Command(binary, append(args, "--dapr-http-port", fmt.Sprint(port))...)
	var log bytes.Buffer // read after the end only
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("penstock ended with %v", err)
		}
		if t.Failed() {
			t.Logf("log of penstock:\n%s", log.String())
		}
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		resp, err := http.Get(p.api + ready)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("penstock does not get ready")
		}
	}
}

// publish publishes an event with an ordering key.
func (p *penstock) publish(t *testing.T, topic, event string) {
	t.Helper()
	query := url.Values{"metadata.partitionKey": {"customer-7"}}
	resp, err := http.Post(p.api+"/publish/bus/"+topic+"?"+query.Encode(), "application/cloudevents+json", strings.NewReader(event))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNoContent {
		t.Fatalf("publish: %d %s", resp.StatusCode, text)
	}
}

func (p *penstock) next(t *testing.T) string {
	t.Helper()
	select {
	case event := <-p.events:
		return event
	case <-time.After(patience):
		t.Fatal("Penstock did not deliver the event")
		return ""
	}
}

// given are the ports handed out, which parallel tests must not share.
var given sync.Map

func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		// Below the ports that the system gives to who asks for any.
		port := 15000 + rand.IntN(17000)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
