package cron

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// got is one delivery as a test sees it.
type got struct {
	At      string // when it came, the clock of the bubble starts at midnight
	Slot    string
	Attempt int
}

// router stands for the flow engine: it notes deliveries and answers by the
// outcomes in its script, the last of which is repeated.
type router struct {
	takes  time.Duration // how long a delivery is under way
	script []cloudevents.Outcome
	hold   bool // emit blocks while a delivery is under way

	mu   sync.Mutex
	seen []got
	all  []*cloudevents.Delivery
	wg   sync.WaitGroup
}

func (r *router) emit(ctx context.Context, d *cloudevents.Delivery) error {
	r.mu.Lock()
	n := len(r.seen)
	r.seen = append(r.seen, got{time.Now().UTC().Format("15:04:05"), d.Event.Time()[11:19], d.Attempt})
	r.all = append(r.all, d)
	r.mu.Unlock()
	outcome := cloudevents.Acked()
	if len(r.script) > 0 {
		outcome = r.script[min(n, len(r.script)-1)]
	}
	if r.takes == 0 {
		d.Settle(outcome)
		return nil
	}
	finish := func() {
		<-time.After(r.takes)
		d.Settle(outcome)
	}
	if r.hold {
		finish()
		return nil
	}
	r.wg.Go(finish)
	return nil
}

func (r *router) want(t *testing.T, want ...got) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if diff := cmp.Diff(want, r.seen); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

func environment(t *testing.T) component.Env {
	return component.Env{
		AppID: "app", Name: "tick", DataDir: t.TempDir(),
		Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{},
	}
}

func defaults(schedule string) options {
	return options{Schedule: schedule, TimeZone: "UTC", Overlap: "queue", CatchUp: "none", MaxCatchUp: 100}
}

func mustOpen(t *testing.T, env component.Env, o options) *binding {
	t.Helper()
	d, err := open(t.Context(), env, o)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*binding)
}

// readFor lets b tick for d of the bubble's time.
func readFor(t *testing.T, b *binding, r *router, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := b.Read(ctx, r.emit); err != nil {
		t.Fatal(err)
	}
}

func closed(t *testing.T, b *binding) {
	t.Helper()
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// ticking is a schedule, how the router answers, and what must come.
type ticking struct {
	name     string
	schedule string
	change   func(*options)
	router   *router
	during   time.Duration
	want     []got
}

func TestTicks(t *testing.T) {
	t.Parallel()
	run(t, []ticking{
		{
			name: "on time", schedule: "*/5 * * * *", during: 11 * time.Minute,
			want: []got{{"00:05:00", "00:05:00", 1}, {"00:10:00", "00:10:00", 1}},
		},
		{
			name: "seconds", schedule: "*/20 * * * * *", during: 45 * time.Second,
			want: []got{{"00:00:20", "00:00:20", 1}, {"00:00:40", "00:00:40", 1}},
		},
		{
			name: "every", schedule: "@every 90s", during: 200 * time.Second,
			want: []got{{"00:01:30", "00:01:30", 1}, {"00:03:00", "00:03:00", 1}},
		},
		{
			name: "queue lets one wait, the newest", schedule: "* * * * *", during: 7*time.Minute + 50*time.Second,
			router: &router{takes: 150 * time.Second},
			want:   []got{{"00:01:00", "00:01:00", 1}, {"00:03:30", "00:03:00", 1}, {"00:06:00", "00:06:00", 1}},
		},
		{
			name: "skip", schedule: "* * * * *", during: 7*time.Minute - time.Second,
			change: func(o *options) { o.Overlap = "skip" }, router: &router{takes: 150 * time.Second},
			want: []got{{"00:01:00", "00:01:00", 1}, {"00:04:00", "00:04:00", 1}},
		},
		{
			name: "skip while the router holds", schedule: "* * * * *", during: 7*time.Minute - time.Second,
			change: func(o *options) { o.Overlap = "skip" }, router: &router{takes: 150 * time.Second, hold: true},
			want: []got{{"00:01:00", "00:01:00", 1}, {"00:04:00", "00:04:00", 1}},
		},
		{
			name: "allow", schedule: "* * * * *", during: 4*time.Minute - time.Second,
			change: func(o *options) { o.Overlap = "allow" }, router: &router{takes: 150 * time.Second},
			want: []got{{"00:01:00", "00:01:00", 1}, {"00:02:00", "00:02:00", 1}, {"00:03:00", "00:03:00", 1}},
		},
	})
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	run(t, []ticking{
		{
			name: "retry with growing pauses", schedule: "0 * * * *", during: time.Hour + 20*time.Second,
			router: &router{script: []cloudevents.Outcome{cloudevents.Retried(errors.New("no"), 0), cloudevents.Retried(nil, 0), cloudevents.Retried(nil, 10*time.Second), cloudevents.Acked()}},
			want:   []got{{"01:00:00", "01:00:00", 1}, {"01:00:01", "01:00:00", 2}, {"01:00:03", "01:00:00", 3}, {"01:00:13", "01:00:00", 4}},
		},
		{
			name: "a failing tick holds the next one up", schedule: "* * * * *", during: 3*time.Minute - time.Second,
			router: &router{script: []cloudevents.Outcome{cloudevents.Retried(nil, 80*time.Second), cloudevents.Acked()}},
			want:   []got{{"00:01:00", "00:01:00", 1}, {"00:02:20", "00:01:00", 2}, {"00:02:20", "00:02:00", 1}},
		},
		{
			name: "drop is an end", schedule: "* * * * *", during: 2*time.Minute + time.Second,
			router: &router{script: []cloudevents.Outcome{cloudevents.Dropped("no", nil)}},
			want:   []got{{"00:01:00", "00:01:00", 1}, {"00:02:00", "00:02:00", 1}},
		},
	})
}

func run(t *testing.T, rows []ticking) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := defaults(row.schedule)
				if row.change != nil {
					row.change(&o)
				}
				r := row.router
				if r == nil {
					r = &router{}
				}
				b := mustOpen(t, environment(t), o)
				readFor(t, b, r, row.during)
				r.wg.Wait()
				closed(t, b)
				r.want(t, row.want...)
			})
		})
	}
}

func TestAllowIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := defaults("* * * * * *")
		o.Overlap = "allow"
		b := mustOpen(t, environment(t), o)
		r := &router{takes: time.Hour}
		readFor(t, b, r, 3*time.Minute)
		if len(r.seen) != maxFlying || len(b.waiting) > 1 {
			t.Fatalf("%d ticks under way and %d waiting, want %d and at most 1", len(r.seen), len(b.waiting), maxFlying)
		}
		closed(t, b)
		r.wg.Wait()
	})
}

func TestEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := defaults("0 4 * * *")
		o.TimeZone = "Asia/Tokyo"
		b := mustOpen(t, environment(t), o)
		r := &router{}
		readFor(t, b, r, 24*time.Hour)
		closed(t, b)
		d := r.all[0]
		attrs := maps.Collect(d.Event.Attrs())
		want := map[string]string{
			"specversion": "1.0", "id": "tick-20000101T190000Z", "source": "/app/tick",
			"type": "io.penstock.cron.tick", "time": "2000-01-01T19:00:00Z",
		}
		if diff := cmp.Diff(want, attrs); diff != "" {
			t.Errorf("attributes (-want +got)\n%s", diff)
		}
		wantMeta := map[string]string{
			"timeZone": "Asia/Tokyo", "readTimeUTC": "2000-01-01 19:00:00 +0000 UTC", "scheduledTime": "2000-01-02T04:00:00+09:00",
		}
		if diff := cmp.Diff(wantMeta, d.Metadata); diff != "" {
			t.Errorf("metadata (-want +got)\n%s", diff)
		}
		if len(d.Body) != 0 || len(d.Event.Data()) != 0 || d.Origin != "tick" {
			t.Errorf("body %q, data %q, origin %q", d.Body, d.Event.Data(), d.Origin)
		}
	})
}

func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := defaults("*/10 * * * *")
		o.Jitter = 9 * time.Minute
		b := mustOpen(t, environment(t), o)
		var late []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		err := b.Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
			slot, err := time.Parse(time.RFC3339, d.Event.Time())
			late = append(late, time.Since(slot))
			d.Settle(cloudevents.Acked())
			return err
		})
		closed(t, b)
		if err != nil || len(late) < 143 {
			t.Fatalf("%d ticks, want about 144; error %v", len(late), err)
		}
		spread := map[time.Duration]bool{}
		for _, d := range late {
			if d < 0 || d >= 9*time.Minute {
				t.Fatalf("a tick came %s after its time", d)
			}
			spread[d] = true
		}
		if len(spread) < 50 {
			t.Fatalf("only %d different delays in %d ticks", len(spread), len(late))
		}
	})
}

// TestClockJumps moves the wall clock under a running binding.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		schedule string
		catchUp  string
		jump     time.Duration // after 12 minutes
		want     []string      // slots seen in 32 minutes
	}{
		{"no jump", "*/10 * * * *", "none", 0, []string{"00:10:00", "00:20:00", "00:30:00"}},
		{"an hour on, none", "*/10 * * * *", "none", time.Hour, []string{"00:10:00", "01:20:00", "01:30:00"}},
		{"an hour on, last", "*/10 * * * *", "last", time.Hour, []string{"00:10:00", "01:10:00", "01:20:00", "01:30:00"}},
		{"an hour on, all", "*/10 * * * *", "all", time.Hour, []string{"00:10:00", "00:20:00", "00:30:00", "00:40:00", "00:50:00", "01:00:00", "01:10:00", "01:20:00", "01:30:00"}},
		{"a little on", "*/10 * * * *", "none", 8*time.Minute + 30*time.Second, []string{"00:10:00", "00:20:00", "00:30:00", "00:40:00"}},
		{"five minutes back", "*/10 * * * *", "none", -5 * time.Minute, []string{"00:10:00", "00:20:00"}},
		{"a second back", "*/12 * * * *", "none", -time.Second, []string{"00:12:00", "00:24:00"}},
		{"a day back", "*/10 * * * *", "none", -24 * time.Hour, []string{"00:10:00", "00:20:00", "00:30:00"}},
		{"every does not care, on", "@every 10m", "none", time.Hour, []string{"00:10:00", "00:20:00", "00:30:00"}},
		{"every does not care, back", "@every 10m", "none", -time.Hour, []string{"00:10:00", "00:20:00", "00:30:00"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := defaults(row.schedule)
				o.CatchUp = row.catchUp
				b := mustOpen(t, environment(t), o)
				start := time.Now()
				b.clock.now = func() time.Time {
					if time.Since(start) > 12*time.Minute {
						return time.Now().Add(row.jump)
					}
					return time.Now()
				}
				r := &router{}
				readFor(t, b, r, 32*time.Minute)
				closed(t, b)
				var slots []string
				for _, g := range r.seen {
					slots = append(slots, g.Slot)
				}
				if diff := cmp.Diff(row.want, slots); diff != "" {
					t.Fatalf("(-want +got)\n%s", diff)
				}
			})
		})
	}
}

func TestStrobingClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustOpen(t, environment(t), defaults("*/10 * * * * *"))
		start := time.Now()
		b.clock.now = func() time.Time {
			jump := time.Second
			if time.Since(start)/time.Second%2 == 0 {
				jump = -jump
			}
			return time.Now().Add(jump)
		}
		r := &router{}
		readFor(t, b, r, time.Hour)
		closed(t, b)
		seen := map[string]int{}
		for _, d := range r.all {
			if seen[d.Event.ID()]++; seen[d.Event.ID()] > 1 {
				t.Fatalf("%s came twice", d.Event.ID())
			}
		}
		if len(seen) < 359 {
			t.Fatalf("%d ticks in an hour, want 360", len(seen))
		}
	})
}

func TestCatchUp(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, catchUp string
		max           int
		want          []got // by the second process, which runs from 01:05 to 01:21
	}{
		{"none", "none", 100, []got{{"01:10:00", "01:10:00", 1}, {"01:20:00", "01:20:00", 1}}},
		{"last", "last", 100, []got{{"01:05:00", "01:00:00", 1}, {"01:10:00", "01:10:00", 1}, {"01:20:00", "01:20:00", 1}}},
		{"all", "all", 100, []got{
			{"01:05:00", "00:30:00", 1},
			{"01:05:00", "00:40:00", 1},
			{"01:05:00", "00:50:00", 1},
			{"01:05:00", "01:00:00", 1},
			{"01:10:00", "01:10:00", 1},
			{"01:20:00", "01:20:00", 1},
		}},
		{"all, bounded", "all", 2, []got{
			{"01:05:00", "00:50:00", 1}, {"01:05:00", "01:00:00", 1}, {"01:10:00", "01:10:00", 1}, {"01:20:00", "01:20:00", 1},
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				env := environment(t)
				o := defaults("*/10 * * * *")
				o.CatchUp, o.MaxCatchUp = row.catchUp, row.max
				first := mustOpen(t, env, o)
				readFor(t, first, &router{}, 25*time.Minute)
				closed(t, first)
				<-time.After(40 * time.Minute)
				second, r := mustOpen(t, env, o), &router{}
				readFor(t, second, r, 16*time.Minute)
				closed(t, second)
				r.want(t, row.want...)
			})
		})
	}
}

// TestOwed checks that ticks which were not settled come again in the next
// process, and settled ones do not.
func TestOwed(t *testing.T) {
	t.Parallel()
	for _, schedule := range []string{"*/10 * * * *", "@every 10m"} {
		t.Run(schedule, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				env := environment(t)
				o := defaults(schedule)
				o.CatchUp, o.Overlap = "all", "allow"
				b := mustOpen(t, env, o)
				r := &router{script: []cloudevents.Outcome{cloudevents.Acked(), cloudevents.Left("stopping"), cloudevents.Retried(nil, time.Hour), cloudevents.Acked()}}
				readFor(t, b, r, 41*time.Minute)
				closed(t, b)
				again, r2 := mustOpen(t, env, o), &router{}
				readFor(t, again, r2, time.Minute)
				closed(t, again)
				r2.want(t, got{"00:41:00", "00:20:00", 1}, got{"00:41:00", "00:30:00", 1}, got{"00:41:00", "00:40:00", 1})
				if r.all[1].Event.ID() != r2.all[0].Event.ID() {
					t.Errorf("id %s was %s before", r2.all[0].Event.ID(), r.all[1].Event.ID())
				}
			})
		})
	}
}

func TestLeftComesWithTheNextRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustOpen(t, environment(t), defaults("*/10 * * * *"))
		r := &router{script: []cloudevents.Outcome{cloudevents.Left("stopping"), cloudevents.Acked()}}
		readFor(t, b, r, 15*time.Minute)
		r.want(t, got{"00:10:00", "00:10:00", 1})
		readFor(t, b, r, 6*time.Minute)
		r.want(t, got{"00:10:00", "00:10:00", 1}, got{"00:15:00", "00:10:00", 1}, got{"00:20:00", "00:20:00", 1})
		closed(t, b)
	})
}

func TestNotTakenComesWithTheNextRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustOpen(t, environment(t), defaults("*/10 * * * *"))
		full := fault.New(fault.Unavailable, "route stops")
		err := b.Read(t.Context(), func(context.Context, *cloudevents.Delivery) error { return full })
		if !errors.Is(err, full) && fault.KindOf(err) != fault.Unavailable {
			t.Fatalf("Read: %v", err)
		}
		r := &router{}
		readFor(t, b, r, time.Minute)
		r.want(t, got{"00:10:00", "00:10:00", 1})
		closed(t, b)
	})
}

func TestAnotherScheduleStartsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		env := environment(t)
		o := defaults("*/10 * * * *")
		o.CatchUp = "all"
		closed(t, mustOpen(t, env, o))
		<-time.After(time.Hour)
		o.Schedule = "*/15 * * * *"
		b, r := mustOpen(t, env, o), &router{}
		readFor(t, b, r, 16*time.Minute)
		closed(t, b)
		r.want(t, got{"01:15:00", "01:15:00", 1})
	})
}

func TestCloseWhileReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := defaults("* * * * *")
		o.CatchUp = "last"
		b := mustOpen(t, environment(t), o)
		var held *cloudevents.Delivery
		done := make(chan error)
		go func() {
			done <- b.Read(t.Context(), func(_ context.Context, d *cloudevents.Delivery) error {
				held = d
				return nil
			})
		}()
		<-time.After(90 * time.Second)
		synctest.Wait()
		if err := b.Read(t.Context(), nil); fault.KindOf(err) != fault.Conflict {
			t.Errorf("second Read: %v, want a conflict", err)
		}
		closing := make(chan error)
		go func() { closing <- b.Close(t.Context()) }()
		if err := <-done; err != nil {
			t.Errorf("Read ended with %v", err)
		}
		if err := <-closing; err != nil {
			t.Errorf("Close: %v", err)
		}
		synctest.Wait()
		held.Settle(cloudevents.Acked())
		closed(t, b)
		if err := b.Read(t.Context(), nil); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Read after Close: %v, want unavailable", err)
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		change func(*options)
		want   string // empty: good
	}{
		{"good", func(*options) {}, ""},
		{"zone in the schedule", func(o *options) { o.Schedule, o.TimeZone = "TZ=UTC @daily", "" }, ""},
		{"bad schedule", func(o *options) { o.Schedule = "61 * * * *" }, `option "schedule"`},
		{"bad zone", func(o *options) { o.TimeZone = "Mars/Olympus" }, `option "timeZone": unknown time zone "Mars/Olympus"`},
		{"bad zone and schedule", func(o *options) { o.TimeZone, o.Schedule = "Mars/Olympus", "x" }, "option \"timeZone\": unknown time zone \"Mars/Olympus\"; use a name such as Europe/Berlin\noption \"schedule\""},
		{"two zones", func(o *options) { o.Schedule = "TZ=UTC @daily" }, `option "timeZone": the schedule "TZ=UTC @daily" has a time zone already`},
		{"no catch-up", func(o *options) { o.MaxCatchUp = 0 }, `option "maxCatchUp"`},
		{"too much catch-up", func(o *options) { o.MaxCatchUp = 10001 }, `option "maxCatchUp"`},
		{"negative jitter", func(o *options) { o.Jitter = -1 }, `option "jitter"`},
		{"jitter as long as the period", func(o *options) { o.Jitter = 10 * time.Minute }, `option "jitter": 10m0s is not shorter than the 10m0s between two ticks`},
		{"jitter of every", func(o *options) { o.Schedule, o.Jitter = "@every 5s", 5*time.Second }, `option "jitter"`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := defaults("*/10 * * * *")
			row.change(&o)
			err := o.Check()
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Fatalf("Check: %v, want %q", err, row.want)
			}
		})
	}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	wrong := map[string]map[string]string{
		"schedule": {"schedule": "0 0 31 2 *"}, "timeZone": {"timeZone": "Mars/Olympus"}, "overlap": {"overlap": "sometimes"},
		"maxCatchUp": {"maxCatchUp": "0"}, "jitter": {"jitter": "24h"},
	}
	for _, catchUp := range []string{"none", "last", "all"} {
		t.Run(catchUp, func(t *testing.T) {
			conform.Binding(t, Component, conform.BindingSetup{
				Options: func(*testing.T) map[string]string {
					return map[string]string{"schedule": "*/10 * * * * *", "timeZone": "UTC", "catchUp": catchUp}
				},
				Wrong: wrong, Virtual: true, Forgets: catchUp == "none",
			})
		})
	}
}
