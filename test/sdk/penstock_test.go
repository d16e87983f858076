package sdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprgrpc "github.com/dapr/go-sdk/service/grpc"
	daprhttp "github.com/dapr/go-sdk/service/http"
	"google.golang.org/grpc"
)

// binary is the built penstock; TestMain makes it.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(asApp) != "" {
		return beApp()
	}
	dir, err := os.MkdirTemp("", "penstock-sdk")
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
	client.SetLogger(log.New(io.Discard, "", 0))
	os.Setenv("DAPR_CLIENT_TIMEOUT_SECONDS", "60") // of the SDK; the machine may be busy
	return m.Run()
}

// wire is a protocol between app and penstock, both ways.
type wire string

// The SDK's client speaks gRPC only; over HTTP the app publishes by hand.
const (
	overHTTP wire = "http"
	overGRPC wire = "grpc"
)

// matrix runs a test over each protocol on each pub/sub of the build.
func matrix(t *testing.T, test func(t *testing.T, w wire, bus string)) {
	for _, w := range []wire{overHTTP, overGRPC} {
		t.Run(string(w), func(t *testing.T) {
			buses(t, func(t *testing.T, bus string) { test(t, w, bus) })
		})
	}
}

const busYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: BUS, version: v1, metadata: []}
`

// buses runs a test on each pub/sub of the build.
func buses(t *testing.T, test func(t *testing.T, bus string)) {
	for _, typ := range []string{"pubsub.in-memory", "pubsub.sqlite"} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			yaml := strings.Replace(busYAML, "BUS", typ, 1)
			if typ == "pubsub.sqlite" {
				file := filepath.Join(t.TempDir(), "bus.db")
				yaml = strings.Replace(yaml, "metadata: []", `metadata: [{name: connectionString, value: "`+file+`"}]`, 1)
			}
			test(t, yaml)
		})
	}
}

// app is an app made with the SDK, served on a port of its own.
func app(t *testing.T, w wire, register func(common.Service) error) (port int) {
	t.Helper()
	port = freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	s := daprhttp.NewService(addr)
	if w == overGRPC {
		var err error
		if s, err = daprgrpc.NewService(addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := register(s); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Start() }()
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return port
}

// given are the ports handed out, which parallel tests must not share.
var given sync.Map

func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		// Below the ports that the system gives to who asks for any.
		p := 15000 + rand.IntN(17000)
		if _, taken := given.LoadOrStore(p, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
			l.Close()
			return p
		}
	}
	t.Fatal("no free port")
	return 0
}

// penstock is a process beside an app, which can be ended and started again as
// it was.
type penstock struct {
	t    *testing.T
	w    wire
	dir  string
	args []string
	api  string // URL of the HTTP API
	addr string // of the gRPC API
	env  []string

	cmd *exec.Cmd
	log bytes.Buffer

	dial   sync.Once
	shared client.Client
}

// sidecar starts penstock beside the app, if there is one, with the given
// resources and waits until it is ready.
func sidecar(t *testing.T, w wire, appPort int, resources string, flags ...string) *penstock {
	t.Helper()
	p := prepare(t, w, appPort, resources, flags...)
	p.start()
	p.ready()
	return p
}

// prepare is sidecar without the start.
func prepare(t *testing.T, w wire, appPort int, resources string, flags ...string) *penstock {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "resources.yaml"), []byte(resources), 0o600); err != nil {
		t.Fatal(err)
	}
	http, grpc := freePort(t), freePort(t)
	p := &penstock{
		t: t, w: w, dir: dir,
		api: fmt.Sprintf("http://127.0.0.1:%d/v1.0", http), addr: fmt.Sprintf("127.0.0.1:%d", grpc),
		args: []string{
			"serve", "--app-id", "shop", "--dapr-http-port", fmt.Sprint(http), "--dapr-grpc-port", fmt.Sprint(grpc),
			"--resources-path", dir, "--data-dir", filepath.Join(dir, "data"),
		},
	}
	if appPort != 0 {
		p.args = append(p.args, "--app-port", fmt.Sprint(appPort), "--app-protocol", string(w))
	}
	p.args = append(p.args, flags...)
	return p
}

func (p *penstock) start() {
	p.t.Helper()
	cmd := exec.Command(binary, p.args...)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.Env = append(os.Environ(), p.env...)
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	first := p.cmd == nil
	p.cmd = cmd
	if !first {
		return
	}
	p.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			if err := p.end(syscall.SIGTERM); err != nil {
				p.t.Errorf("penstock ended with %v", err)
			}
		}
		if p.t.Failed() {
			p.t.Logf("log of penstock:\n%s", p.log.String())
		}
	})
}

// end ends the process with a signal and tells how it ended.
func (p *penstock) end(signal syscall.Signal) error {
	p.cmd.Process.Signal(signal)
	return p.cmd.Wait()
}

// restart ends the process with a signal and starts it again.
func (p *penstock) restart(signal syscall.Signal) {
	p.t.Helper()
	if err := p.end(signal); err != nil && signal == syscall.SIGTERM {
		p.t.Errorf("penstock ended with %v", err)
	}
	p.start()
	p.ready()
}

func (p *penstock) ready() {
	p.t.Helper()
	eventually(p.t, "penstock is ready", func() bool {
		resp, err := http.Get(p.api + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusNoContent
	})
}

// connect makes a client of the SDK.
func (p *penstock) connect(opts ...grpc.DialOption) client.Client {
	p.t.Helper()
	c, err := client.NewClientWithAddressContext(p.t.Context(), p.addr, opts...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}

// client is a client that the whole test uses.
func (p *penstock) client() client.Client {
	p.t.Helper()
	p.dial.Do(func() { p.shared = p.connect() })
	return p.shared
}

// publish publishes JSON the way of the test's protocol.
func (p *penstock) publish(topic, data string) {
	p.t.Helper()
	if p.w == overHTTP {
		if status, body := post(p.t, p.api+"/publish/bus/"+topic, "application/json", data); status != http.StatusNoContent {
			p.t.Fatalf("publish: %d %s", status, body)
		}
		return
	}
	if err := p.client().PublishEvent(p.t.Context(), "bus", topic, data, client.PublishEventWithContentType("application/json")); err != nil {
		p.t.Fatal(err)
	}
}

// eventually polls for a condition, for at most a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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

// post sends one request and returns the status and the body.
func post(t *testing.T, url, contentType, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(url, contentType, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// receive takes one value within a minute.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}
