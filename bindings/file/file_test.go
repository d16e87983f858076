package file

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within 10 s; delivered %.300q; log:\n%s", what, b.bodies(), b.log)
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

func TestWholeFile(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.write("a.json", "{\"n\": 1.0}\xff")
	b.read()
	b.want("{\"n\": 1.0}\xff")
	b.has(".done/a.json")
	b.hasNot("a.json")
	d := b.got[0]
	e := d.Event
	info, err := os.Stat(filepath.Join(b.o.Path, ".done/a.json"))
	if err != nil {
		t.Fatal(err)
	}
	at := info.ModTime().UTC().Format(time.RFC3339Nano)
	if e.Type() != "io.penstock.file.created" || e.Subject() != "a.json" || !strings.HasSuffix(e.Source(), "/in/a.json") || e.Time() != at || len(e.ID()) != 32 {
		t.Errorf("event %s", e.JSON())
	}
	if e.DataContentType() != "application/octet-stream" {
		t.Errorf("content type %q of what is no JSON", e.DataContentType())
	}
	want := map[string]string{"fileName": "a.json", "size": "11", "modTime": at}
	if diff := cmp.Diff(want, d.Metadata); diff != "" || d.Key != "a.json" || d.Attempt != 1 || d.Origin != "inbox" {
		t.Errorf("delivery %+v (-want +got)\n%s", d, diff)
	}
	b.write("b.json", `{"n":1}`)
	b.want("{\"n\": 1.0}\xff", `{"n":1}`)
	if got := b.got[1].Event.DataContentType(); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	b.write("empty", "")
	b.has(".done/empty")
}

func TestLines(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *options) { o.Mode, o.Pattern = lines, "*.csv" })
	b.write("a.csv", "one\r\n\n\xff\x00two\nthree")
	b.write("other.txt", "no")
	b.read()
	b.want("one", "\xff\x00two", "three")
	b.has(".done/a.csv")
	d := b.got[1]
	if d.Metadata["line"] != "3" || d.Metadata["offset"] != "6" || d.Event.Type() != "io.penstock.file.line" || d.Event.DataContentType() != "text/csv" || d.Key != "a.csv" {
		t.Errorf("delivery %+v with event %s", d, d.Event.JSON())
	}
	if !b.exists("other.txt") {
		t.Error("a file that the pattern does not take was moved")
	}
}

func TestAfter(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{whole, lines} {
		t.Run("delete "+mode, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *options) { o.After, o.Mode = del, mode })
			b.write("a", "x")
			b.read()
			b.want("x")
			b.hasNot("a")
			if b.exists(".done") {
				t.Error("there is a folder for files that are done")
			}
		})
		t.Run("keep "+mode, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *options) { o.After, o.Mode = keep, mode })
			b.write("a", "x")
			b.read()
			b.want("x")
			b.looks()
			b.restart()
			b.looks()
			b.want("x")
			b.write("a", "y") // another file of that name
			b.want("x", "y")
			b.looks()
			b.want("x", "y")
		})
	}
	t.Run("same name again", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, nil)
		b.read()
		for _, text := range []string{"x", "y", "z"} {
			b.write("a", text)
			b.hasNot("a")
		}
		b.want("x", "y", "z")
		entries, err := os.ReadDir(filepath.Join(b.o.Path, ".done"))
		if err != nil || len(entries) != 3 {
			t.Fatalf("done: %v, %v", entries, err)
		}
	})
}

func TestHalfWrittenFilesAreNotRead(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *options) { o.StableFor = 150 * time.Millisecond })
	b.read()
	b.write("a", "0")
	want := "0"
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range 20 {
		<-tick.C
		b.add("a", fmt.Sprint(i))
		want += fmt.Sprint(i)
	}
	for _, name := range []string{".hidden", "b.tmp", "c.PART"} {
		b.write(name, "no")
	}
	b.want(want)
	b.looks()
	b.want(want)
}

func TestRetryAndDrop(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *options) { o.Mode = lines })
	var attempts []int
	b.answers(func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
		switch {
		case string(d.Body) == "two" && d.Attempt < 3:
			attempts = append(attempts, d.Attempt)
			return cloudevents.Retried(errors.New("no"), 20*time.Millisecond), true
		case string(d.Body) == "three":
			return cloudevents.Dropped("no", nil), true
		}
		return cloudevents.Acked(), true
	})
	b.write("a", "one\ntwo\nthree\n")
	b.read()
	b.has(".done/a")
	got := b.bodies()
	slices.Sort(got)
	if diff := cmp.Diff([]string{"one", "three", "two", "two", "two"}, got); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

func TestWholeRetryReadsAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.answers(func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
		if d.Attempt == 1 {
			return cloudevents.Retried(nil, time.Millisecond), true
		}
		return cloudevents.Acked(), true
	})
	b.write("a", "x")
	b.read()
	b.want("x", "x")
	b.has(".done/a")
	if b.got[0].Event.ID() != b.got[1].Event.ID() || b.got[1].Attempt != 2 {
		t.Errorf("ids %s and %s, attempt %d", b.got[0].Event.ID(), b.got[1].Event.ID(), b.got[1].Attempt)
	}
}

// TestLinesGoOnAfterRestart leaves some lines without an outcome: a restart
// delivers those and what follows, nothing before.
func TestLinesGoOnAfterRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *options) { o.Mode = lines })
	b.answers(func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
		switch string(d.Body) {
		case "l5":
			return cloudevents.Outcome{}, false
		case "l7":
			return cloudevents.Left("stopping"), true
		}
		return cloudevents.Acked(), true
	})
	var text strings.Builder
	for i := range 40 {
		fmt.Fprintf(&text, "l%d\n", i)
	}
	b.write("a", text.String())
	b.read()
	b.until("ahead", func() bool { return len(b.bodies()) >= 20 })
	b.looks()
	before := b.bodies()
	if len(before) > 40 {
		t.Fatalf("%d lines delivered with two of them open", len(before))
	}
	ids := map[string]string{}
	for _, d := range b.got {
		ids[string(d.Body)] = d.Event.ID()
	}
	b.close()
	b.mu.Lock()
	b.got = nil
	b.mu.Unlock()
	b.answers(func(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Acked(), true })
	b.read()
	b.has(".done/a")
	after := b.bodies()
	if after[0] != "l5" || len(after) != 35 || after[34] != "l39" {
		t.Fatalf("after the restart %q, want l5 to l39", after)
	}
	if first := b.got[0]; first.Event.ID() != ids["l5"] || first.Metadata["line"] != "6" {
		t.Errorf("l5 came again with id %s (was %s) as line %s", first.Event.ID(), ids["l5"], first.Metadata["line"])
	}
}

func TestLeftComesWithTheNextRead(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{whole, lines} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *options) { o.Mode = mode })
			b.answers(func(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Left("stopping"), true })
			b.write("a", "x")
			b.read()
			b.want("x")
			b.looks()
			b.want("x")
			b.stop()
			b.answers(func(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Acked(), true })
			b.read()
			b.has(".done/a")
			b.want("x", "x")
			if b.got[1].Attempt != 1 {
				t.Errorf("attempt %d after a leave", b.got[1].Attempt)
			}
		})
	}
}

// TestOutcomeAfterRead settles after Read has returned, before Close.
func TestOutcomeAfterRead(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.answers(func(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Outcome{}, false })
	b.write("a", "x")
	b.read()
	b.want("x")
	b.stop()
	b.got[0].Settle(cloudevents.Acked())
	b.has(".done/a")
	b.restart()
	b.looks()
	b.want("x")
}

func TestOutcomeAfterCloseChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.answers(func(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Outcome{}, false })
	b.write("a", "x")
	b.read()
	b.want("x")
	b.close()
	b.got[0].Settle(cloudevents.Acked())
	b.answers(func(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Acked(), true })
	b.read()
	b.want("x", "x")
}

// TestInterruptedMove stands for a crash between the note and the move.
func TestInterruptedMove(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, after, state, found string }{
		{"move", move, stateDone, ".done/a"},
		{"delete", del, stateDone, ""},
		{"set aside", move, stateFailed, ".failed/a"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *options) { o.After = row.after })
			b.write("a", "x")
			b.open()
			info, err := os.Lstat(filepath.Join(b.o.Path, "a"))
			if err != nil {
				t.Fatal(err)
			}
			r := record{name: "a", identity: identify(info), generation: "g", state: row.state, position: 1}
			if err := b.b.ledger.write(t.Context(), []record{r}, nil); err != nil {
				t.Fatal(err)
			}
			b.restart()
			b.hasNot("a")
			if row.found != "" {
				b.has(row.found)
			}
			b.looks()
			b.want()
			if r, err := b.b.ledger.find(t.Context(), "a"); r != nil || err != nil {
				t.Fatalf("still remembered: %v, %v", r, err)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, func(o *options) { o.MaxFileSize = 10 })
		b.write("big", strings.Repeat("x", 11))
		b.write("fits", strings.Repeat("y", 10))
		b.read()
		b.has(".failed/big")
		b.has(".done/fits")
		b.want(strings.Repeat("y", 10))
		if !strings.Contains(b.log.String(), "file is given up") || !strings.Contains(b.log.String(), "11 bytes, more than maxFileSize") {
			t.Errorf("log:\n%s", b.log)
		}
	})
	t.Run("line", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, func(o *options) { o.Mode, o.MaxLineSize = lines, 5 })
		b.write("a", "12345\n123456\nnever\n")
		b.read()
		b.has(".failed/a")
		b.want("12345")
		if !strings.Contains(b.log.String(), "line 2 at byte 6 is longer than maxLineSize") {
			t.Errorf("log:\n%s", b.log)
		}
	})
	t.Run("keep", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, func(o *options) { o.After, o.MaxFileSize = keep, 3 })
		b.write("a", "1234")
		b.read()
		b.until("given up", func() bool { return strings.Contains(b.log.String(), "file is given up") })
		b.looks()
		b.restart()
		b.looks()
		b.want()
		if n := strings.Count(b.log.String(), "given up"); n != 1 || !b.exists("a") {
			t.Errorf("said %d times, file there: %v", n, b.exists("a"))
		}
	})
}

func TestGrowingFile(t *testing.T) {
	t.Parallel()
	for _, after := range []string{keep, move} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *options) { o.Mode, o.After = lines, after })
			hold := make(chan *cloudevents.Delivery, 1)
			b.answers(func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
				if string(d.Body) == "two" {
					hold <- d
					return cloudevents.Outcome{}, false
				}
				return cloudevents.Acked(), true
			})
			b.write("a", "one\ntwo\n")
			b.read()
			d := <-hold
			b.add("a", "three\n")
			d.Settle(cloudevents.Acked())
			b.want("one", "two", "three")
			if got := b.got[2].Metadata["line"]; got != "3" {
				t.Errorf("the line that was added is line %s", got)
			}
			if after == keep {
				b.looks()
				b.add("a", "four\n")
				b.want("one", "two", "three", "four")
				b.restart()
				b.add("a", "five\n")
				b.want("one", "two", "three", "four", "five")
			} else {
				b.has(".done/a")
			}
		})
	}
}

func TestRewrittenFileIsNew(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *options) { o.Mode, o.After = lines, keep })
	b.write("a", "one\ntwo\n")
	b.read()
	b.want("one", "two")
	b.looks()
	if err := os.WriteFile(filepath.Join(b.o.Path, "a"), []byte("uno\ndos\ntres\n"), 0o644); err != nil { // in place
		t.Fatal(err)
	}
	b.want("one", "two", "uno", "dos", "tres")
}

func TestFileReplacedWhileUnderWay(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	hold := make(chan *cloudevents.Delivery, 2)
	b.answers(func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
		hold <- d
		return cloudevents.Outcome{}, false
	})
	b.write("a", "old")
	b.read()
	d := <-hold
	b.write("a", "new")
	d.Settle(cloudevents.Acked())
	d = <-hold
	if string(d.Body) != "new" {
		t.Fatalf("delivered %q", d.Body)
	}
	d.Settle(cloudevents.Acked())
	b.has(".done/a")
	if text, err := os.ReadFile(filepath.Join(b.o.Path, ".done/a")); err != nil || string(text) != "new" {
		t.Fatalf("done is %q, %v", text, err)
	}
}

func TestOnlyOrdinaryFilesOfTheFolder(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.o.Path, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.o.Path, "sub", "x"), []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(b.o.Path, "link")); err != nil {
		t.Fatal(err)
	}
	b.write("a", "x")
	b.read()
	b.has(".done/a")
	b.looks()
	b.want("x")
	if n := strings.Count(b.log.String(), "no ordinary file"); n != 1 {
		t.Errorf("said %d times about the link:\n%s", n, b.log)
	}
}

func TestOneReaderPerFolder(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.read()
	b.write("a", "x")
	b.want("x")
	if err := b.b.Read(t.Context(), nil); fault.KindOf(err) != fault.Conflict {
		t.Errorf("second Read: %v", err)
	}
	other, err := open(t.Context(), b.env, b.o)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.(*binding).Read(t.Context(), b.emit); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Read of another binding: %v of kind %v, want unavailable", err, fault.KindOf(err))
	}
	b.close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := other.(*binding).Read(ctx, b.emit); err != nil {
		t.Errorf("Read after the first one closed: %v", err)
	}
	if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := other.(*binding).Read(ctx, b.emit); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Read after Close: %v", err)
	}
}

func TestManyFilesAndLines(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *options) { o.Mode = lines })
	want := map[string]int{}
	for f := range 150 {
		var text strings.Builder
		for l := range 30 {
			line := fmt.Sprintf("%d/%d", f, l)
			want[line]++
			text.WriteString(line + "\n")
		}
		b.write(fmt.Sprintf("f%03d", f), text.String())
	}
	var out sync.WaitGroup
	b.answers(func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
		out.Go(func() { d.Settle(cloudevents.Acked()) })
		return cloudevents.Outcome{}, false
	})
	b.read()
	b.until("all are done", func() bool {
		entries, err := os.ReadDir(filepath.Join(b.o.Path, ".done"))
		return err == nil && len(entries) == 150
	})
	out.Wait()
	got := map[string]int{}
	last := map[string]int{}
	for _, body := range b.bodies() {
		got[body]++
		var f string
		var l int
		if _, err := fmt.Sscanf(strings.ReplaceAll(body, "/", " "), "%s %d", &f, &l); err != nil {
			t.Fatal(err)
		}
		if l < last[f] {
			t.Errorf("line %s came after line %d", body, last[f])
		}
		last[f] = l
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got)\n%.2000s", diff)
	}
}

func TestRouterThatStops(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.write("a", "x")
	b.open()
	full := fault.New(fault.Unavailable, "route stops")
	err := b.b.Read(t.Context(), func(context.Context, *cloudevents.Delivery) error { return full })
	if fault.KindOf(err) != fault.Unavailable || err == nil {
		t.Fatalf("Read: %v", err)
	}
	b.read()
	b.want("x")
	b.has(".done/a")
}

func TestCannotBePutAway(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.write(".done", "a file in the way of the folder")
	b.write("a", "x")
	b.read()
	b.want("x")
	b.until("said so", func() bool { return strings.Contains(b.log.String(), "cannot be put away") })
	b.looks()
	if n := strings.Count(b.log.String(), "cannot be put away"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if err := os.Remove(filepath.Join(b.o.Path, ".done")); err != nil {
		t.Fatal(err)
	}
	b.has(".done/a")
	b.want("x")
}

func TestForgetsFilesThatAreGone(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *options) { o.After = keep })
	b.write("a", "x")
	b.write("b", "y")
	b.read()
	b.until("both", func() bool { return len(b.bodies()) == 2 })
	b.close()
	if err := os.Remove(filepath.Join(b.o.Path, "a")); err != nil {
		t.Fatal(err)
	}
	b.read()
	b.until("a is forgotten", func() bool {
		r, err := b.b.ledger.find(t.Context(), "a")
		return r == nil && err == nil
	})
	if r, err := b.b.ledger.find(t.Context(), "b"); r == nil || err != nil {
		t.Fatalf("b is forgotten: %v", err)
	}
}

func TestStrangeNames(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.write("a b\n\xff#?%.txt", "x")
	b.read()
	b.want("x")
	e := b.got[0].Event
	if e.Subject() != "a%20b%0A%FF%23%3F%25.txt" || !strings.HasSuffix(e.Source(), "/in/a%20b%0A%FF%23%3F%25.txt") {
		t.Errorf("event %s", e.JSON())
	}
	b.has(".done/a b\n\xff#?%.txt")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for option, change := range map[string]func(*options){
		"pattern":     func(o *options) { o.Pattern = "[" },
		"doneDir":     func(o *options) { o.DoneDir = "../done" },
		"failedDir":   func(o *options) { o.FailedDir = "." },
		"stableFor":   func(o *options) { o.StableFor = -1 },
		"interval":    func(o *options) { o.Interval = 0 },
		"maxFileSize": func(o *options) { o.MaxFileSize = 0 },
		"maxLineSize": func(o *options) { o.MaxLineSize = 1 << 40 },
	} {
		o := newBench(t, nil).o
		change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), `"`+option+`"`) {
			t.Errorf("%s: %v", option, err)
		}
	}
}

func FuzzLines(f *testing.F) {
	for _, seed := range []string{"", "a", "a\nb", "a\r\nb\r\n", "\n\n", "\r", "a\rb\n", strings.Repeat("x", 100) + "\n"} {
		f.Add([]byte(seed), 10)
	}
	f.Fuzz(func(t *testing.T, text []byte, limit int) {
		limit = max(limit, 1)
		in := bufio.NewReaderSize(bytes.NewReader(text), 16)
		var all []byte
		for {
			line, err := nextLine(in, limit)
			if errors.Is(err, errLineTooLong) {
				return
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.IndexByte(line, '\n'); n >= 0 && n != len(line)-1 || len(trimEnd(line)) > limit {
				t.Fatalf("line %q with limit %d", line, limit)
			}
			all = append(all, line...)
		}
		if !bytes.Equal(all, text) {
			t.Fatalf("lines make %q of %q", all, text)
		}
	})
}
