package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

// bench is a folder, and what was delivered from it.
type bench struct {
	t    *testing.T
	env  component.Env
	o    options
	log  *lockedBuffer
	b    *binding
	stop func() // ends the Read

	mu     sync.Mutex
	got    []*cloudevents.Delivery
	answer func(*cloudevents.Delivery) (cloudevents.Outcome, bool) // false: say nothing
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newBench(t *testing.T, change func(*options)) *bench {
	t.Helper()
	b := &bench{t: t, log: &lockedBuffer{}}
	b.o = options{
		Path: filepath.Join(t.TempDir(), "in"), Pattern: "*", Mode: whole, After: move, DoneDir: ".done", FailedDir: ".failed",
		StableFor: 10 * time.Millisecond, Interval: 20 * time.Millisecond, MaxFileSize: 1 << 20, MaxLineSize: 1 << 10, OrderBy: "file",
	}
	if change != nil {
		change(&b.o)
	}
	if err := b.o.Check(); err != nil {
		t.Fatal(err)
	}
	b.env = component.Env{
		AppID: "app", Name: "inbox", DataDir: t.TempDir(), Shared: &component.Shared{},
		Logger: slog.New(slog.NewTextHandler(b.log, nil)),
	}
	b.answer = func(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Acked(), true }
	t.Cleanup(func() { b.close() })
	return b
}

func (b *bench) open() {
	b.t.Helper()
	d, err := open(b.t.Context(), b.env, b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.b = d.(*binding)
}

func (b *bench) emit(_ context.Context, d *cloudevents.Delivery) error {
	b.mu.Lock()
	b.got = append(b.got, d)
	answer := b.answer
	b.mu.Unlock()
	if o, ok := answer(d); ok {
		d.Settle(o)
	}
	return nil
}

func (b *bench) answers(f func(*cloudevents.Delivery) (cloudevents.Outcome, bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = f
}

func (b *bench) read() {
	b.t.Helper()
	if b.b == nil {
		b.open()
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.b.Read(ctx, b.emit) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Read: %v", err)
		}
		b.stop = nil
	}
}

func (b *bench) close() {
	if b.stop != nil {
		b.stop()
	}
	if b.b != nil {
		if err := b.b.Close(context.WithoutCancel(b.t.Context())); err != nil {
			b.t.Errorf("Close: %v", err)
		}
		b.b = nil
	}
}

func (b *bench) restart() {
	b.t.Helper()
	b.close()
	b.read()
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.MkdirAll(b.o.Path, 0o755); err != nil {
		b.t.Fatal(err)
	}
	temp := filepath.Join(b.o.Path, ".writing")
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(b.o.Path, name)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) add(name, text string) {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.o.Path, name), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		b.t.Fatal(err)
	}
}

// bodies returns what was delivered so far.
func (b *bench) bodies() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, d := range b.got {
		all = append(all, string(d.Body))
	}
	return all
}

// until polls until ok.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within a minute; delivered %.300q; log:\n%s", what, b.bodies(), b.log)
		}
	}
}

func (b *bench) want(bodies ...string) {
	b.t.Helper()
	b.until(fmt.Sprintf("deliveries %.300q", bodies), func() bool { return len(b.bodies()) >= len(bodies) })
	if diff := cmp.Diff(bodies, b.bodies()); diff != "" {
		b.t.Fatalf("(-want +got)\n%s", diff)
	}
}

// looks waits until the folder has been looked through some more times.
func (b *bench) looks() {
	b.t.Helper()
	timer := time.NewTimer(8 * b.o.Interval)
	defer timer.Stop()
	<-timer.C
}

func (b *bench) exists(name string) bool {
	_, err := os.Stat(filepath.Join(b.o.Path, name))
	return err == nil
}

func (b *bench) has(name string) {
	b.t.Helper()
	b.until(name+" exists", func() bool { return b.exists(name) })
}

func (b *bench) hasNot(name string) {
	b.t.Helper()
	b.until(name+" is gone", func() bool { return !b.exists(name) })
}
