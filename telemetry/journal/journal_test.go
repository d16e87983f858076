package journal_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/telemetry/journal"
)

// happen has one round begin and end now, with one try.
func happen(j *journal.Journal, route, id string, o journal.Outcome) {
	var r journal.Round
	j.Begin(&r, journal.Event{ID: id, Source: "/till", Type: "com.shop.sold", Size: 7}, journal.Nth{Route: route, Round: 1, Attempt: 1}, time.Now())
	r.Try("app", 0)
	r.Tried(o, "", 0)
	r.End(journal.Ending{Outcome: o}, 0)
}

// pass lets time go by, in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func ids(entries []journal.Entry) (out []string) {
	for _, e := range entries {
		out = append(out, e.ID)
	}
	return out
}

// TestARound is all that is told of one, from its begin to what is found later.
func TestARound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(0)
		began := time.Now()
		step := func() time.Duration { pass(time.Millisecond); return time.Since(began) }
		var r journal.Round
		j.Begin(&r, journal.Event{ID: "1", Source: "/till", Type: "sold", Subject: "s", TraceID: "t", Size: 9}, journal.Nth{Route: "r", Round: 2, Attempt: 3}, began)
		r.Try("app", step())
		want := journal.Entry{
			Time: began.UTC(), Route: "r", ID: "1", Source: "/till", Type: "sold", Subject: "s", TraceID: "t", Size: 9, Round: 2, Attempt: 3,
			Duration: journal.Millis(time.Millisecond), Tries: []journal.Try{{Target: "app", After: journal.Millis(time.Millisecond)}},
		}
		if diff := cmp.Diff([]journal.Entry{want}, j.UnderWay(journal.Filter{ID: "1"}, 9)); diff != "" {
			t.Errorf("under way (-want +got)\n%s", diff)
		}
		r.Tried(journal.Ack, "", step())
		r.Try("bus", step())
		r.Tried(journal.Retry, "refused", step())
		r.End(journal.Ending{Outcome: journal.Retry, Reason: "refused", Wait: time.Second}, step())
		want.Seq, want.Time, want.Duration = 1, began.Add(5*time.Millisecond).UTC(), journal.Millis(5*time.Millisecond)
		want.Outcome, want.Reason, want.Wait = journal.Retry, "refused", journal.Millis(time.Second)
		want.Tries = []journal.Try{
			{Target: "app", After: journal.Millis(time.Millisecond), Duration: journal.Millis(time.Millisecond), Outcome: journal.Ack},
			{Target: "bus", After: journal.Millis(3 * time.Millisecond), Duration: journal.Millis(time.Millisecond), Outcome: journal.Retry, Reason: "refused"},
		}
		if diff := cmp.Diff([]journal.Entry{want}, j.Find(journal.Filter{ID: "1"}, 9)); diff != "" {
			t.Errorf("found (-want +got)\n%s", diff)
		}
		if left := j.UnderWay(journal.Filter{}, 9); len(left) > 0 {
			t.Errorf("still under way: %+v", left)
		}
	})
}

func TestJSON(t *testing.T) {
	t.Parallel()
	e := journal.Entry{
		Seq: 4, Time: time.Unix(1, 5e8).UTC(), Route: "r", ID: "1", Source: "/s", Type: "t", Round: 1, Attempt: 1, Outcome: journal.DeadLetter, Reason: "no",
		Duration: journal.Millis(1500 * time.Microsecond), Tries: []journal.Try{{Target: "app", Duration: journal.Millis(time.Millisecond), Outcome: journal.Drop}},
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"seq":4,"time":"1970-01-01T00:00:01.5Z","route":"r","id":"1","source":"/s","type":"t","size":0,"round":1,"attempt":1,` +
		`"outcome":"deadletter","reason":"no","durationMs":1.5,"tries":[{"target":"app","afterMs":0,"durationMs":1,"outcome":"drop"}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	var back journal.Entry
	if err := json.Unmarshal(text, &back); err != nil || !cmp.Equal(back, e) {
		t.Errorf("%+v came back, %v", back, err)
	}
	if _, err := journal.ParseOutcome("lost"); err == nil {
		t.Error("there is no such outcome")
	}
}

// TestOnlyTheNewestAreKept plays rounds with texts of all lengths, and compares
// with a list of all that was written.
func TestOnlyTheNewestAreKept(t *testing.T) {
	t.Parallel()
	const bytes = 256 << 10
	j := journal.New(bytes)
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string { return strings.Repeat("x", random.IntN(400)) }
	var all []journal.Entry
	for n := range 5000 {
		var r journal.Round
		e := journal.Entry{
			Seq: uint64(n + 1), Route: fmt.Sprint("r", n%3), ID: fmt.Sprint(n, "-", text()), Source: text(), Type: text(), Subject: text(),
			Outcome: journal.Outcome(1 + random.IntN(6)), Reason: text(), Round: n, Attempt: 1,
		}
		j.Begin(&r, journal.Event{ID: e.ID, Source: e.Source, Type: e.Type, Subject: e.Subject}, journal.Nth{Route: e.Route, Round: n, Attempt: 1}, time.Time{})
		for range random.IntN(12) {
			try := journal.Try{Target: text(), Outcome: journal.Retry, Reason: text()}
			r.Try(try.Target, 0)
			r.Tried(try.Outcome, try.Reason, 0)
			if try.Target, try.Reason = cut(try.Target), cut(try.Reason); len(e.Tries) < journal.MaxTries {
				e.Tries = append(e.Tries, try)
			}
		}
		r.End(journal.Ending{Outcome: e.Outcome, Reason: e.Reason}, 0)
		e.ID, e.Source, e.Type, e.Subject, e.Reason = cut(e.ID), cut(e.Source), cut(e.Type), cut(e.Subject), cut(e.Reason)
		all = append(all, e)
	}
	got := j.Find(journal.Filter{}, len(all))
	if len(got) < bytes/6000 || len(got) >= bytes/100 {
		t.Fatalf("%d are kept", len(got))
	}
	for i := range got {
		got[i].Time = time.Time{}
	}
	if diff := cmp.Diff(all[len(all)-len(got):], got); diff != "" {
		t.Errorf("(-want +got)\n%.4000s", diff)
	}
	want := all[len(all)-1]
	if one := j.Find(journal.Filter{Route: "r1", Outcomes: []journal.Outcome{want.Outcome}, ID: want.ID}, 1); want.Route == "r1" && len(one) != 1 {
		t.Errorf("%q is not found", want.ID)
	}
}

func cut(s string) string { return s[:min(len(s), journal.MaxText)] }

func TestTextsAreWhole(t *testing.T) {
	t.Parallel()
	j := journal.New(0)
	long := strings.Repeat("ü", 200) // 400 bytes: it is cut within a letter
	happen(j, "r", long, journal.Ack)
	happen(j, "r", "a\xffb", journal.Ack)
	if got := ids(j.Find(journal.Filter{}, 9)); !cmp.Equal(got, []string{strings.Repeat("ü", 127), "ab"}) {
		t.Errorf("got %q", got)
	}
	if got := j.Find(journal.Filter{ID: long}, 9); len(got) != 1 {
		t.Errorf("%d found by the whole id", len(got))
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(0)
		happen(j, "binding/a", "1", journal.Ack)
		happen(j, "binding/b", "2", journal.Drop)
		pass(time.Second)
		since := time.Now()
		happen(j, "pipeline/a", "3", journal.Ack)
		happen(j, "binding/a", "4", journal.DeadLetter)
		for _, row := range []struct {
			name  string
			f     journal.Filter
			limit int
			want  []string
		}{
			{"all", journal.Filter{}, 9, []string{"1", "2", "3", "4"}},
			{"the newest", journal.Filter{}, 2, []string{"3", "4"}},
			{"none", journal.Filter{}, 0, nil},
			{"route", journal.Filter{Route: "binding/a"}, 9, []string{"1", "4"}},
			{"routes", journal.Filter{Route: "binding/*"}, 9, []string{"1", "2", "4"}},
			{"id", journal.Filter{ID: "3"}, 9, []string{"3"}},
			{"type", journal.Filter{Type: "com.shop.*"}, 1, []string{"4"}},
			{"other type", journal.Filter{Type: "com.shop"}, 9, nil},
			{"outcomes", journal.Filter{Outcomes: []journal.Outcome{journal.Drop, journal.DeadLetter}}, 9, []string{"2", "4"}},
			{"since", journal.Filter{Since: since}, 9, []string{"3", "4"}},
			{"trace", journal.Filter{TraceID: "t"}, 9, nil},
		} {
			if got := ids(j.Find(row.f, row.limit)); !cmp.Equal(got, row.want) {
				t.Errorf("%s: got %v, want %v", row.name, got, row.want)
			}
		}
	})
}

func TestRecent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(0)
		happen(j, "r", "old", journal.Retry)
		pass(time.Minute)
		round := func(o journal.Outcome, took time.Duration) {
			var r journal.Round
			j.Begin(&r, journal.Event{}, journal.Nth{Route: "r"}, time.Now())
			pass(took)
			r.End(journal.Ending{Outcome: o}, took)
		}
		for range 98 {
			round(journal.Ack, time.Millisecond)
		}
		round(journal.DeadLetter, 20*time.Millisecond)
		round(journal.Drop, 10*time.Millisecond)
		var under journal.Round
		j.Begin(&under, journal.Event{}, journal.Nth{Route: "stuck"}, time.Now())
		pass(3 * time.Second)
		want := map[string]journal.Recent{
			"r": {
				Window: journal.Millis(10 * time.Second), Rate: 10, Errors: 0.1,
				P50: journal.Millis(time.Millisecond), P99: journal.Millis(20 * time.Millisecond),
			},
			"stuck": {Window: journal.Millis(10 * time.Second), Oldest: journal.Millis(3 * time.Second)},
		}
		if diff := cmp.Diff(want, j.Recent(10*time.Second)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// TestRecentOfAShortMemory: when the journal does not go back as far as was asked,
// rates are those of what it has.
func TestRecentOfAShortMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := journal.New(1) // two segments
		for n := range 4000 {
			happen(j, "r", fmt.Sprint(n), journal.Ack)
			pass(time.Millisecond)
		}
		got := j.Recent(time.Hour)["r"]
		if time.Duration(got.Window) > 2*time.Second || got.Rate < 990 || got.Rate > 1010 {
			t.Errorf("got %+v, want 1000 a second", got)
		}
	})
}

func TestNilRemembersNothing(t *testing.T) {
	t.Parallel()
	var j *journal.Journal
	happen(j, "r", "1", journal.Ack)
	if j.Find(journal.Filter{}, 9) != nil || j.UnderWay(journal.Filter{}, 9) != nil || j.Recent(time.Second) != nil {
		t.Error("there is something")
	}
	if _, err := j.Watch(journal.Watching{}); err == nil {
		t.Error("it can be watched")
	}
}

// TestCost: writing allocates nothing, once the room is taken.
func TestCost(t *testing.T) { // not parallel: it counts allocations
	j := journal.New(1)
	var r journal.Round
	e := journal.Event{ID: "5f0c8a3e-1d9b-4d6f-9d5b-6a0a5ad6e7f1", Source: "/till/7", Type: "com.shop.sold", TraceID: strings.Repeat("a", 32), Size: 300}
	for range 10_000 {
		happen(j, "subscription/bus/orders", e.ID, journal.Ack)
	}
	allocs := testing.AllocsPerRun(1000, func() { once(j, &r, e) })
	if allocs != 0 {
		t.Errorf("%v allocations for a round", allocs)
	}
}

func once(j *journal.Journal, r *journal.Round, e journal.Event) {
	began := time.Now()
	j.Begin(r, e, journal.Nth{Route: "subscription/bus/orders", Round: 1, Attempt: 1}, began)
	r.Try("app", time.Since(began))
	r.Tried(journal.Ack, "", time.Since(began))
	r.End(journal.Ending{Outcome: journal.Ack}, time.Since(began))
}

// BenchmarkRound is one round with one try, the clock included.
func BenchmarkRound(b *testing.B) {
	j := journal.New(0)
	var r journal.Round
	e := journal.Event{ID: "5f0c8a3e-1d9b-4d6f-9d5b-6a0a5ad6e7f1", Source: "/till/7", Type: "com.shop.sold", TraceID: strings.Repeat("a", 32), Size: 300}
	b.ReportAllocs()
	for b.Loop() {
		once(j, &r, e)
	}
}

// BenchmarkClock is the part of it that is looking at the clock.
func BenchmarkClock(b *testing.B) {
	for b.Loop() {
		began := time.Now()
		for range 3 {
			_ = time.Since(began)
		}
	}
}
