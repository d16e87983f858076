package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

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
			b.until("it is forgotten", func() bool {
				r, err := b.b.ledger.find(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				return r == nil
			})
		})
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
