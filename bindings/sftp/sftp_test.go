package sftp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	fake "github.com/penstock-io/penstock/test/fake/sftp"
)

// patience is for everything that must happen by and by.
const patience = 30 * time.Second

// setup returns options for a fake server, with a folder that does not exist.
func setup(t *testing.T) (*fake.Server, map[string]string) {
	t.Helper()
	server := fake.Start(t)
	return server, map[string]string{
		"address": server.Addr(), "username": fake.Username, "privateKey": server.PrivateKey(),
		"hostPublicKey": server.HostKey(), "rootPath": filepath.Join(t.TempDir(), "root"),
	}
}

// opened opens the component; the test closes it in the end.
func opened(t *testing.T, o map[string]string, shared *component.Shared) component.Driver {
	t.Helper()
	var items []config.Item
	for name, value := range o {
		items = append(items, config.Item{Name: name, Value: value})
	}
	env := component.Env{AppID: "app", Name: "files", DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Shared: shared}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, d) })
	return d
}

func shut(t *testing.T, d component.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Error(err)
	}
}

// side is one process that takes files.
type side struct {
	t      *testing.T
	driver component.Driver
	answer func(d *cloudevents.Delivery) (cloudevents.Outcome, bool)
	ended  chan error // the Read's answer

	mu  sync.Mutex
	got []*cloudevents.Delivery
}

// reads opens a binding on the inbox and reads it until the test ends.
func reads(t *testing.T, o map[string]string, answer func(d *cloudevents.Delivery) (cloudevents.Outcome, bool)) *side {
	t.Helper()
	o["inbox"] = "in"
	for name, value := range map[string]string{"stableFor": "5ms", "interval": "20ms", "claimTimeout": "1h"} {
		if o[name] == "" {
			o[name] = value
		}
	}
	s := &side{t: t, driver: opened(t, o, &component.Shared{}), answer: answer}
	s.read()
	return s
}

func (s *side) read() {
	ended := make(chan error, 1)
	s.ended = ended
	go func() { ended <- s.driver.(bindings.Reader).Read(s.t.Context(), s.emit) }()
}

func (s *side) emit(_ context.Context, d *cloudevents.Delivery) error {
	s.mu.Lock()
	s.got = append(s.got, d)
	s.mu.Unlock()
	if s.answer == nil {
		d.Settle(cloudevents.Acked())
	} else if o, ok := s.answer(d); ok {
		d.Settle(o)
	}
	return nil
}

func (s *side) bodies() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.got {
		all = append(all, string(d.Body))
	}
	return all
}

// at returns one of what came.
func (s *side) at(i int) *cloudevents.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[i]
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// put writes a file as whole; names are relative to the root.
func put(t *testing.T, o map[string]string, name, text string) {
	t.Helper()
	full := filepath.Join(o["rootPath"], name)
	temp := filepath.Join(filepath.Dir(full), ".put-"+filepath.Base(full))
	err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(temp, []byte(text), 0o644), os.Rename(temp, full))
	if err != nil {
		t.Fatal(err)
	}
}

func has(o map[string]string, name string) bool {
	_, err := os.Stat(filepath.Join(o["rootPath"], name))
	return err == nil
}

func TestTakesFiles(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	o["pattern"] = "*.json"
	put(t, o, "in/a.json", `{"n": 1.0}`)
	for _, name := range []string{"in/.hidden.json", "in/b.json.PART", "in/c.csv", "in/folder.json/x"} {
		put(t, o, name, "no")
	}
	s := reads(t, o, nil)
	until(t, "done", func() bool { return has(o, "in/.done/a.json") })
	put(t, o, "in/a.json", `{"n": 2}`) // the name again
	until(t, "done again", func() bool { return len(s.bodies()) == 2 && !has(o, "in/a.json") })
	if diff := cmp.Diff([]string{`{"n": 1.0}`, `{"n": 2}`}, s.bodies()); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
	until(t, "both are kept", func() bool {
		entries, err := os.ReadDir(filepath.Join(o["rootPath"], "in/.done"))
		return err == nil && len(entries) == 2
	})
	d := s.at(0)
	e := d.Event
	if e.Type() != "io.penstock.sftp.file" || e.Subject() != "a.json" || !strings.HasPrefix(e.Source(), "sftp://"+o["address"]+"/") ||
		e.DataContentType() != "application/json" || len(e.ID()) != 32 || d.Attempt != 1 || d.Origin != "files" {
		t.Errorf("delivery %+v with event %s", d, e.JSON())
	}
	if d.Metadata["fileName"] != "a.json" || d.Metadata["size"] != "10" || d.Metadata["modTime"] != e.Time() {
		t.Errorf("metadata %v, time %s", d.Metadata, e.Time())
	}
	if !has(o, "in/c.csv") || !has(o, "in/b.json.PART") || !has(o, "in/.hidden.json") {
		t.Error("a file was taken that is not wanted")
	}
}

func TestDeliversThePath(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	o["deliver"], o["maxFileSize"] = asPath, "2"
	put(t, o, "in/a.csv", "longer than maxFileSize in:a body")
	held := make(chan *cloudevents.Delivery, 1)
	s := reads(t, o, func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
		held <- d
		return cloudevents.Outcome{}, false
	})
	d := <-held
	var data struct {
		FileName, Name string
		Size           int
	}
	if err := json.Unmarshal(d.Body, &data); err != nil || data.Name != "a.csv" || data.Size != 33 || data.FileName != d.Metadata["fileName"] {
		t.Fatalf("data %s, metadata %v: %v", d.Body, d.Metadata, err)
	}
	if !has(o, data.FileName) {
		t.Errorf("%s is not there", data.FileName)
	}
	d.Settle(cloudevents.Acked())
	until(t, "done", func() bool { return has(o, "in/.done/a.csv") })
	if len(s.bodies()) != 1 {
		t.Error("it came again")
	}
}

// TestFilesBeingWrittenAreLeftAlone writes slowly: what comes is whole. A machine
// that paused while it wrote tries again with another file.
func TestFilesBeingWrittenAreLeftAlone(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	o["stableFor"] = "2s"
	s := reads(t, o, nil)
	for try := range 5 {
		name, before := strconv.Itoa(try), len(s.bodies())
		want, gap := writeSlowly(t, o, name)
		until(t, "done", func() bool { return has(o, "in/.done/"+name) })
		if gap > time.Second {
			continue
		}
		if diff := cmp.Diff([]string{want}, s.bodies()[before:]); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		return
	}
	t.Fatal("this machine never wrote for three seconds without a pause of one")
}

// writeSlowly writes a file for three seconds and returns what is in it and the
// longest pause.
func writeSlowly(t *testing.T, o map[string]string, name string) (text string, gap time.Duration) {
	t.Helper()
	put(t, o, "in/"+name, "0")
	last := time.Now()
	f, err := os.OpenFile(filepath.Join(o["rootPath"], "in", name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text = "0"
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range 30 {
		<-tick.C
		more := fmt.Sprint(i)
		text += more
		if _, err := f.WriteString(more); err != nil {
			t.Fatal(err)
		}
		gap, last = max(gap, time.Since(last)), time.Now()
	}
	return text, gap
}

func TestTooLargeIsSetAside(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	o["maxFileSize"] = "3"
	put(t, o, "in/big", "four")
	put(t, o, "in/fits", "two")
	s := reads(t, o, nil)
	until(t, "set aside", func() bool { return has(o, "in/.failed/big") })
	until(t, "the other", func() bool { return has(o, "in/.done/fits") })
	if diff := cmp.Diff([]string{"two"}, s.bodies()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRetryCountsAndDropIsDone(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	put(t, o, "in/a", "x")
	s := reads(t, o, func(d *cloudevents.Delivery) (cloudevents.Outcome, bool) {
		if d.Attempt < 3 {
			return cloudevents.Retried(nil, time.Millisecond), true
		}
		return cloudevents.Dropped("no", nil), true
	})
	until(t, "done", func() bool { return has(o, "in/.done/a") })
	if diff := cmp.Diff([]string{"x", "x", "x"}, s.bodies()); diff != "" || s.at(0).Event.ID() != s.at(2).Event.ID() {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestCutConnections breaks all connections again and again: every file arrives
// and is put away.
func TestCutConnections(t *testing.T) {
	t.Parallel()
	server, o := setup(t)
	const files = 60
	for i := range files {
		put(t, o, fmt.Sprintf("in/f%02d", i), fmt.Sprint(i))
	}
	s := reads(t, o, nil)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var cuts int
	until(t, "all are done", func() bool {
		select {
		case err := <-s.ended: // as the router does
			if err == nil {
				t.Fatal("read ended without an error")
			}
			s.read()
		case <-tick.C:
			if cuts++; cuts < 10 {
				server.Cut()
			}
		default:
		}
		entries, _ := os.ReadDir(filepath.Join(o["rootPath"], "in/.done"))
		return len(entries) == files
	})
	seen := map[string]bool{}
	for _, body := range s.bodies() {
		seen[body] = true
	}
	if len(seen) != files {
		t.Errorf("%d of %d files were delivered", len(seen), files)
	}
}
