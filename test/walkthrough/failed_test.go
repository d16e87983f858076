package walkthrough

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/port"
)

// TestWhenEventsFail runs the commands of docs/when-events-fail.md as they stand
// there, but for the ports.
func TestWhenEventsFail(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs/when-events-fail.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, root, "go", "build", "-o", filepath.Join(dir, "penstock"), "./cmd/penstock")
	app, api := free(t), free(t)
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		script.WriteString(block[1])
	}
	commands := strings.NewReplacer("8080", app, "penstock run ", "penstock run --dapr-grpc-port 0 --dapr-http-port "+api+" ").Replace(script.String())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", commands)
	c.Dir = dir
	home := filepath.Join(dir, "home") // where instances tell of themselves
	c.Env = append(os.Environ(), "DAPR_HTTP_PORT="+api, "HOME="+home, "XDG_CACHE_HOME="+home, "GOCACHE="+strings.TrimSpace(run(t, root, "go", "env", "GOCACHE")))
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	t.Cleanup(func() { // whatever went wrong, nothing stays behind
		stop := exec.Command(filepath.Join(dir, "penstock"), "stop", "--app-id", "shop")
		stop.Dir, stop.Env = dir, c.Env
		_ = stop.Run() // it was stopped, when all is well
	})
	said := string(out)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("%v\n%s\nthe log:\n%s", err, said, log)
	}
	for _, want := range []string{
		"published 87 bytes to bus/orders", "dead letter ", "given up at", "order-4", "replayed 2, failed 0, left 0",
		"order-1\norder-2\norder-3\norder-4\norder-5\nno dead letters\n", "stopped shop",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("nothing says %q:\n%s", want, said)
		}
	}
	if n := strings.Count(said, "deadletter  subscription/bus/orders  order-"); n != 2 {
		t.Errorf("tail shows %d dead letters, want 2:\n%s", n, said)
	}
}

func free(t *testing.T) string {
	t.Helper()
	n, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(n)
}
