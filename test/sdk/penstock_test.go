package sdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/dapr/go-sdk/service/common"
	daprhttp "github.com/dapr/go-sdk/service/http"
)

// binary is the built penstock; TestMain makes it.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
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
	return m.Run()
}

// app is an app made with the SDK, served on a port of its own.
func app(t *testing.T, register func(common.Service) error) (port int) {
	t.Helper()
	port = freePort(t)
	s := daprhttp.NewService(fmt.Sprintf("127.0.0.1:%d", port))
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

func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		// Below the ports that the system gives to who asks for any.
		p := 15000 + rand.IntN(17000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
			l.Close()
			return p
		}
	}
	t.Fatal("no free port")
	return 0
}

// sidecar starts penstock beside the app with the given resources and waits
// until it is ready. It returns the URL of its API.
func sidecar(t *testing.T, appPort int, resources string, flags ...string) (api string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "resources.yaml"), []byte(resources), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	args := append([]string{
		"serve", "--app-id", "shop", "--app-port", fmt.Sprint(appPort), "--dapr-http-port", fmt.Sprint(port), "--dapr-grpc-port", "0",
		"--resources-path", dir, "--data-dir", filepath.Join(dir, "data"),
	}, flags...)
	cmd := exec.Command(binary, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("penstock ended with %v", err)
		}
		if t.Failed() {
			t.Logf("log of penstock:\n%s", log.String())
		}
	})
	api = fmt.Sprintf("http://127.0.0.1:%d/v1.0", port)
	eventually(t, "penstock is ready", func() bool {
		resp, err := http.Get(api + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusNoContent
	})
	return api
}

// eventually polls for a condition, for at most ten seconds.
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

// receive takes one value within ten seconds.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(60 * time.Second):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}
