package router

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

func TestAddChecks(t *testing.T) {
	t.Parallel()
	src := newBook(t)
	good := Route{Name: "r", Source: src, Targets: to(ackAll)}
	rows := []struct {
		name  string
		spoil func(*Route)
		want  string
	}{
		{"no name", func(r *Route) { r.Name = "" }, "add route: it has no name"},
		{"no source", func(r *Route) { r.Source = nil }, `add route "r": it has no source`},
		{"no target", func(r *Route) { r.Targets = nil }, `add route "r": it has no target`},
		{"no send", func(r *Route) { r.Targets = []Target{{Name: "app"}} }, `add route "r": target 1 ("app") has no Send`},
		{"no do", func(r *Route) { r.Steps = []Step{{Name: "filter"}} }, `add route "r": step 1 ("filter") has no Do`},
		{"negative lanes", func(r *Route) { r.Lanes = -1 }, `add route "r": -1 lanes: use 1 to 65536`},
		{"too many lanes", func(r *Route) { r.Lanes = 1 << 20 }, `add route "r": 1048576 lanes: use 1 to 65536`},
		{"negative window", func(r *Route) { r.Window = -1 }, `add route "r": a window of -1 events and 0 bytes: use 0 for the default or more`},
	}
	r, err := New(Options{Logger: silent()})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		route := good
		row.spoil(&route)
		err := r.Add(route)
		if err == nil || err.Error() != row.want || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %v (%s), want %s", row.name, err, fault.KindOf(err), row.want)
		}
	}
	mustAdd(t, r, good)
	if err := r.Add(good); fault.KindOf(err) != fault.Conflict {
		t.Errorf("second of a name: %v", err)
	}
	if err := r.Remove(t.Context(), "r"); err != nil {
		t.Errorf("remove before run: %v", err)
	}
	for _, o := range []Options{{}, {Logger: silent(), DrainTimeout: -1}} {
		if _, err := New(o); fault.KindOf(err) != fault.Invalid {
			t.Errorf("options %+v: %v", o, err)
		}
	}
}

func TestRoutesAddedBeforeRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook(t)
		r, err := New(Options{Logger: silent()})
		if err != nil {
			t.Fatal(err)
		}
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(ackAll)})
		if s := r.Routes(); len(s) != 1 || s[0].Window != 64 || s[0].WindowBytes != 64<<20 || s[0].Lanes != 1 {
			t.Errorf("status %+v", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		b.put("1")
		synctest.Wait()
		b.want("1", "ack")
		if err := r.Run(ctx); fault.KindOf(err) != fault.Conflict {
			t.Errorf("second run: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), &cemetery{}
		s := newScript(ack, drop, cloudevents.Left("away"), nope, nope)
		r := running(t, Options{})
		decode := func(d *cloudevents.Delivery) error { d.Event = event(t); return nil }
		mustAdd(t, r, Route{
			Name: "r", From: "book", Source: b, Decode: decode, Steps: []Step{{Name: "not the first", Do: endsFirst()}},
			Targets: []Target{{Name: "target", Send: s.send}},
		})
		mustAdd(t, r, Route{Name: "s", Source: b, Targets: to(newScript(drop).send), DeadLetter: c.bury})
		if err := r.Remove(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"0", "1", "2", "3", "4"} {
			b.put(name)
			synctest.Wait()
		}
		got := r.Routes()[0]
		if got.LastErrorAt.IsZero() || !strings.Contains(got.LastError, "refused") {
			t.Errorf("last error %q at %s", got.LastError, got.LastErrorAt)
		}
		got.LastError, got.LastErrorAt = "", time.Time{}
		want := Status{
			Name: "r", From: "book", Lanes: 1, Window: 64, WindowBytes: 64 << 20, Held: 1, HeldBytes: 1, Waiting: 1,
			Counts:  Counts{Acked: 1, Dropped: 2, Left: 1, Retried: 1},
			Steps:   []StepStatus{{Name: "not the first", Passed: 4, Ended: 1}},
			Targets: []TargetStatus{{Name: "target", Tries: 4, Taken: 1}},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// endsFirst is a step that drops the first event.
func endsFirst() func(context.Context, *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
	n := 0
	return func(context.Context, *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		if n++; n > 1 {
			return nil, nil
		}
		o := cloudevents.Dropped("it is the first", nil)
		return nil, &o
	}
}

func TestEmitRefusesNonsense(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		mustAdd(t, running(t, Options{}), Route{Name: "r", Targets: to(ackAll), Source: SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			errs = append(errs, emit(ctx, nil), emit(ctx, &cloudevents.Delivery{}))
			<-ctx.Done()
			return nil
		})})
		synctest.Wait()
		for _, err := range errs {
			if fault.KindOf(err) != fault.Invalid {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestLogIsQuiet has an hour of trouble and counts lines.
func TestLogIsQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := newBook(t)
		r := running(t, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 8, Targets: to(newScript(nope).send)})
		mustAdd(t, r, Route{Name: "broken", Targets: to(ackAll), Source: SourceFunc(func(context.Context, cloudevents.EmitFunc) error {
			return errors.New("connection lost")
		})})
		for i := range 50 {
			b.put(strings.Repeat("x", i+1))
		}
		pass(time.Hour)
		if n := strings.Count(out.String(), "connection lost"); n != 1 {
			t.Errorf("a broken source is told %d times", n)
		}
		if n := strings.Count(out.String(), "event not delivered yet"); n < 100 || n > 361 {
			t.Errorf("%d lines of failing deliveries in an hour", n)
		}
		first, _, _ := strings.Cut(out.String()[strings.Index(out.String(), "event not delivered yet"):], "\n")
		if strings.Contains(first, "not_logged") || !strings.Contains(first, " target=") {
			t.Errorf("the first failure is told as %s", first)
		}
		if !strings.Contains(out.String(), " not_logged=") {
			t.Error("no line tells how many failures got none")
		}
	})
}

// TestLogNamesTheTrace: a line about a delivery has the ids by which the rest is
// found, in other logs too.
func TestLogNamesTheTrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := running(t, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		const trace = "0af7651916cd43dd8448eb211c80319c"
		mustAdd(t, r, Route{Name: "r", Targets: to(newScript(nope).send), Source: SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			for _, d := range []*cloudevents.Delivery{
				{Metadata: map[string]string{"traceparent": "00-" + trace + "-b7ad6b7169203331-01"}},
				{Began: "00-" + trace + "-b7ad6b7169203331-00"},
				{Metadata: map[string]string{"traceparent": "garbage\n"}},
			} {
				d.Settle = func(cloudevents.Outcome) {}
				if err := emit(ctx, d); err != nil {
					return err
				}
				pass(time.Minute)
			}
			<-ctx.Done()
			return nil
		})})
		pass(10 * time.Minute)
		text := out.String()
		if !strings.Contains(text, " trace="+trace+" ") || strings.Contains(text, "garbage") || strings.Count(text, " trace=") == strings.Count(text, "\n") {
			t.Errorf("the log is\n%s", text)
		}
	})
}

func TestToldOnlyWhenThereIsSomething(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Warn("m", told("target", ""), told("not_logged", 0), told("left", 2))
	if !strings.HasSuffix(out.String(), `"msg":"m","left":2}`+"\n") {
		t.Error(out.String())
	}
}

func TestSettleThatPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook(t)
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(ackAll)})
		d := b.delivery("a/1")
		d.Settle = func(cloudevents.Outcome) { panic("boom") }
		b.in <- d
		b.put("a/2")
		synctest.Wait()
		b.want("a/2", "ack")
		if held := r.Routes()[0].Held; held != 0 {
			t.Errorf("%d held", held)
		}
	})
}
