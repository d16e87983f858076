package telemetry_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
)

// lines of a log without their times.
func lines(out *bytes.Buffer) slog.Handler {
	return slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

func TestLevelsOfParts(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := telemetry.NewLevels(slog.LevelInfo)
	main := l.Open(lines(&out), "runtime").With("app_id", "shop")
	router := telemetry.Part(main, "router").With("route", "r")
	bus := telemetry.Part(main, telemetry.ComponentPart+"bus").WithGroup("g")
	router.Debug("one")
	if err := l.Set("router", "Debug"); err != nil {
		t.Fatal(err)
	}
	router.Debug("two")
	main.Debug("three")
	if err := l.Set("bus", "error"); err != nil { // as component/bus
		t.Fatal(err)
	}
	bus.Warn("four")
	bus.Error("five", "k", "v")
	if err := l.Set("", "warn"); err != nil {
		t.Fatal(err)
	}
	main.Info("six")
	telemetry.Part(main, "late").Info("seven")
	main.Warn("eight")
	const want = `level=DEBUG msg=two app_id=shop route=r
level=ERROR msg=five app_id=shop g.k=v
level=WARN msg=eight app_id=shop
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	l.Keep(nil)
	if diff := cmp.Diff([]telemetry.Level{{"late", "warn"}, {"router", "warn"}, {"runtime", "warn"}}, l.List()); diff != "" {
		t.Error(diff)
	}
}

func TestLevelsRefuse(t *testing.T) {
	t.Parallel()
	l := telemetry.NewLevels(slog.LevelInfo)
	for i := range 60 {
		l.Open(slog.DiscardHandler, fmt.Sprintf("part%02d", i))
	}
	err := l.Set("rooter", "info")
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), `no part "rooter"; there are part00, part01, `) || !strings.HasSuffix(err.Error(), "part49, more") {
		t.Errorf("a part that is not there: %v", err)
	}
	for _, word := range []string{"", "loud", "INFO+1"} {
		if err := l.Set("part00", word); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "use debug, info, warn or error") {
			t.Errorf("level %q: %v", word, err)
		}
	}
	var none *telemetry.Levels
	none.Keep(nil)
	if log := slog.New(slog.DiscardHandler); telemetry.Part(log, "x") != log || telemetry.LevelsOf(log) != nil || none.List() != nil || none.Set("", "info") == nil {
		t.Error("nil levels are something")
	}
}

// TestBelowLevelCostsNothing: neither memory nor the handler behind.
func TestBelowLevelCostsNothing(t *testing.T) { // not parallel: it counts allocations
	log := telemetry.NewLevels(slog.LevelInfo).Open(untouched{t}, "router").With()
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { log.LogAttrs(ctx, slog.LevelDebug, "m", slog.String("k", "v")) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// untouched is a handler that nobody may ask.
type untouched struct{ t *testing.T }

func (u untouched) Enabled(context.Context, slog.Level) bool { u.t.Error("asked"); return true }

func (u untouched) Handle(context.Context, slog.Record) error { u.t.Error("written to"); return nil }

func (u untouched) WithAttrs([]slog.Attr) slog.Handler { return u }

func (u untouched) WithGroup(string) slog.Handler { return u }
