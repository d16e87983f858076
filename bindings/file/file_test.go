package file

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock-io/penstock/cloudevents"
)

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
	var want strings.Builder
	want.WriteString("0")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range 20 {
		<-tick.C
		b.add("a", fmt.Sprint(i))
		want.WriteString(fmt.Sprint(i))
	}
	for _, name := range []string{".hidden", "b.tmp", "c.PART"} {
		b.write(name, "no")
	}
	b.want(want.String())
	b.looks()
	b.want(want.String())
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
		b.until("the log says why", func() bool {
			return strings.Contains(b.log.String(), "file is given up") && strings.Contains(b.log.String(), "11 bytes, more than maxFileSize")
		})
	})
	t.Run("line", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, func(o *options) { o.Mode, o.MaxLineSize = lines, 5 })
		b.write("a", "12345\n123456\nnever\n")
		b.read()
		b.has(".failed/a")
		b.want("12345")
		b.until("the log says why", func() bool {
			return strings.Contains(b.log.String(), "line 2 at byte 6 is longer than maxLineSize")
		})
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
