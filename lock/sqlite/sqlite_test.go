package sqlite

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/test/conform"
)

// holderVariable has a child process hold a lock of the file that it names.
const holderVariable = "PENSTOCK_TEST_HOLDER"

func TestMain(m *testing.M) {
	if path := os.Getenv(holderVariable); path != "" {
		os.Exit(hold(path))
	}
	os.Exit(m.Run())
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Lock(t, Component, conform.LockSetup{
		Options: func(t *testing.T) map[string]string {
			return map[string]string{"connectionString": filepath.Join(t.TempDir(), "locks.db")}
		},
		Wrong: map[string]map[string]string{"timeout": {"timeout": "1ms"}},
	})
}

func opened(ctx context.Context, path string) (lock.Driver, error) {
	env := component.Env{AppID: "app", Name: "locks", Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(ctx, env, []config.Item{{Name: "connectionString", Value: path}})
	if err != nil {
		return nil, err
	}
	return d.(lock.Driver), nil
}

// hold takes a lock, says so and waits to be killed.
func hold(path string) int {
	ctx := context.Background()
	d, err := opened(ctx, path)
	if err != nil {
		return 1
	}
	if g, err := d.TryLock(ctx, "lock||a", "child", 2*time.Second); err != nil || !g.Held || g.Token != 1 {
		return 2
	}
	_, _ = os.Stdout.WriteString("held\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 3
}

// TestKilled kills the process that holds a lock: another waits for its time, and
// gets a larger token.
func TestKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "locks.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holderVariable+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	held := time.Now()
	if killed := cmd.Process.Kill(); err != nil || line != "held\n" || killed != nil {
		t.Fatalf("the child said %q, %v, %v", line, err, killed)
	}
	_ = cmd.Wait() // it was killed
	d, err := opened(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		g, err := d.TryLock(t.Context(), "lock||a", "parent", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		if g.Held {
			if since.Sub(begun) < 2*time.Second || g.Token != 2 {
				t.Errorf("granted %s after the child began, with token %d; want 2s or more, and token 2", since.Sub(begun), g.Token)
			}
			return
		}
		if since.Sub(held) > 30*time.Second {
			t.Fatal("the lock of the killed process does not end")
		}
		<-tick.C
	}
}

// TestSweep: what ran out does not stay for ever.
func TestSweep(t *testing.T) {
	t.Parallel()
	d, err := opened(t.Context(), filepath.Join(t.TempDir(), "locks.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if _, err := d.TryLock(t.Context(), name, "ann", time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); ; {
		if _, err := d.TryLock(t.Context(), "kept", "ann", time.Minute); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := d.(*store).db.Read().QueryRowContext(t.Context(), "SELECT count(*) FROM penstock_locks").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d rows are left, want the one that is held", n)
		}
	}
}
