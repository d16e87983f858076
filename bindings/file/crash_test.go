package file

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

const crashFolder = "PENSTOCK_TEST_CRASH_FOLDER"

// TestMain makes the test binary a process that reads a folder when told so by
// the environment, for TestCrash to kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashFolder); dir != "" {
		if err := readUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func crashOptions(dir string) options {
	return options{
		Path: filepath.Join(dir, "in"), Pattern: "*", Mode: lines, After: move, DoneDir: ".done", FailedDir: ".failed",
		StableFor: time.Millisecond, Interval: 10 * time.Millisecond, MaxFileSize: 1 << 20, MaxLineSize: 1 << 10, OrderBy: "file",
	}
}

// readUntilKilled notes each line in a file before it acknowledges it.
func readUntilKilled(dir string) error {
	out, err := os.OpenFile(filepath.Join(dir, "received"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	env := component.Env{
		AppID: "app", Name: "inbox", DataDir: filepath.Join(dir, "data"), Shared: &component.Shared{},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	ctx := context.Background()
	d, err := open(ctx, env, crashOptions(dir))
	if err != nil {
		return err
	}
	var one sync.Mutex
	return d.(*binding).Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
		one.Lock() // slow enough for the kills to come in between
		defer one.Unlock()
		<-time.After(50 * time.Microsecond)
		if _, err := out.Write(append(bytes.Clone(d.Body), '\n')); err != nil {
			return err
		}
		d.Settle(cloudevents.Acked())
		return nil
	})
}

// TestCrash kills the reading process again and again: every line arrives, and
// only those under way at a kill arrive twice.
func TestCrash(t *testing.T) {
	t.Parallel()
	const files, perFile, kills = 80, 100, 10
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o755); err != nil {
		t.Fatal(err)
	}
	for f := range files {
		var text strings.Builder
		for l := range perFile {
			fmt.Fprintf(&text, "%d/%d\n", f, l)
		}
		if err := os.WriteFile(filepath.Join(in, fmt.Sprintf("f%d", f)), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	killed := 0
	for round := 0; ; round++ {
		wait := time.Duration(50+10*round) * time.Millisecond
		if round >= kills {
			wait = 20 * time.Second
		}
		if readAndKill(t, dir, wait) {
			break
		}
		killed++
	}
	text, err := os.ReadFile(filepath.Join(dir, "received"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for line := range strings.Lines(string(text)) {
		got[strings.TrimSpace(line)]++
	}
	twice := 0
	for f := range files {
		for l := range perFile {
			n := got[fmt.Sprintf("%d/%d", f, l)]
			if n == 0 {
				t.Fatalf("line %d/%d is lost", f, l)
			}
			twice += n - 1
		}
	}
	if killed == 0 {
		t.Error("the process was done before the first kill")
	}
	t.Logf("%d lines, %d kills, %d received twice", files*perFile, killed, twice)
}

// readAndKill runs the process until all files are done, which makes it return
// true, or the time is over.
func readAndKill(t *testing.T, dir string, limit time.Duration) bool {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashFolder+"="+dir)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // ended by the kill
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		left, err := filepath.Glob(filepath.Join(dir, "in", "f*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return true
		}
	}
	if limit > 10*time.Second {
		t.Fatalf("not done within %s; log:\n%s", limit, log.String())
	}
	return false
}

func BenchmarkLines(b *testing.B) {
	dir := b.TempDir()
	o := crashOptions(dir)
	line := []byte(`{"order":1234,"customer":"someone","amount":12.5,"note":"a line of about one hundred bytes, more or less"}` + "\n")
	if err := os.MkdirAll(o.Path, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Path, "f.ndjson"), bytes.Repeat(line, b.N), 0o600); err != nil {
		b.Fatal(err)
	}
	env := component.Env{Name: "inbox", DataDir: dir, Shared: &component.Shared{}, Logger: slog.New(slog.DiscardHandler)}
	d, err := open(b.Context(), env, o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	n := 0
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	b.ResetTimer()
	err = d.(*binding).Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
		d.Settle(cloudevents.Acked())
		if n++; n == b.N {
			cancel()
		}
		return nil
	})
	b.StopTimer()
	if err := d.Close(context.WithoutCancel(b.Context())); err != nil {
		b.Error(err)
	}
	if err != nil || n != b.N {
		b.Fatalf("%d of %d lines, %v", n, b.N, err)
	}
}
