package cron

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func at(t *testing.T, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	when, err := time.ParseInLocation("2006-01-02 15:04:05", text, loc)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestNext(t *testing.T) {
	t.Parallel()
	const berlin, newYork = "Europe/Berlin", "America/New_York"
	rows := []struct {
		name, schedule, zone, after string
		want                        []string // local, with offset
	}{
		{"five fields", "30 4 * * *", "UTC", "2026-01-01 00:00:00", []string{"2026-01-01 04:30:00 +0000", "2026-01-02 04:30:00 +0000"}},
		{"six fields", "15 30 4 * * *", "UTC", "2026-01-01 00:00:00", []string{"2026-01-01 04:30:15 +0000"}},
		{"daily", "@daily", berlin, "2026-01-01 12:00:00", []string{"2026-01-02 00:00:00 +0100"}},
		{"own zone", "TZ=Asia/Tokyo 0 9 * * *", "UTC", "2026-01-01 12:00:00", []string{"2026-01-02 00:00:00 +0000"}},
		{"other prefix", "CRON_TZ=Asia/Tokyo @daily", "UTC", "2026-01-01 12:00:00", []string{"2026-01-01 15:00:00 +0000"}},
		{"every", "@every 90s", "UTC", "2026-01-01 00:00:00", []string{"2026-01-01 00:01:30 +0000", "2026-01-01 00:03:00 +0000"}},
		{"leap day", "0 0 29 2 *", "UTC", "2026-01-01 00:00:00", []string{"2028-02-29 00:00:00 +0000", "2032-02-29 00:00:00 +0000"}},
		{"day of month or week", "0 0 13 * FRI", "UTC", "2026-02-01 00:00:00", []string{"2026-02-06 00:00:00 +0000", "2026-02-13 00:00:00 +0000", "2026-02-20 00:00:00 +0000"}},

		{"gap: once at its end", "30 2 * * *", berlin, "2026-03-28 12:00:00", []string{"2026-03-29 03:00:00 +0200", "2026-03-30 02:30:00 +0200"}},
		{"gap: many slots are one", "*/10 2 * * *", berlin, "2026-03-29 00:00:00", []string{"2026-03-29 03:00:00 +0200", "2026-03-30 02:00:00 +0200"}},
		{"gap: joins the slot at its end", "0 2,3 * * *", berlin, "2026-03-29 00:00:00", []string{"2026-03-29 03:00:00 +0200", "2026-03-30 02:00:00 +0200"}},
		{"gap: the end is not in it", "0 4 * * *", berlin, "2026-03-29 00:00:00", []string{"2026-03-29 04:00:00 +0200"}},
		{"gap: every hour follows real time", "30 * * * *", berlin, "2026-03-29 01:00:00", []string{"2026-03-29 01:30:00 +0100", "2026-03-29 03:30:00 +0200"}},
		{"gap: at midnight", "30 0 * * *", "Asia/Beirut", "2026-03-28 12:00:00", []string{"2026-03-29 01:00:00 +0300", "2026-03-30 00:30:00 +0300"}},
		{"gap: day after midnight gap is not lost", "0 5 29 3 *", "Asia/Beirut", "2026-03-01 00:00:00", []string{"2026-03-29 05:00:00 +0300"}},

		{"overlap: once, the first time", "30 1 * * *", newYork, "2026-10-31 12:00:00", []string{"2026-11-01 01:30:00 -0400", "2026-11-02 01:30:00 -0500"}},
		{"overlap: many slots once", "0,30 1 * * *", newYork, "2026-11-01 00:00:00", []string{"2026-11-01 01:00:00 -0400", "2026-11-01 01:30:00 -0400", "2026-11-02 01:00:00 -0500"}},
		{"overlap: every hour runs twice", "30 * * * *", newYork, "2026-11-01 00:45:00", []string{"2026-11-01 01:30:00 -0400", "2026-11-01 01:30:00 -0500", "2026-11-01 02:30:00 -0500"}},
		{"overlap: the hour after it", "0 2 * * *", newYork, "2026-11-01 00:00:00", []string{"2026-11-01 02:00:00 -0500"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			from := at(t, row.zone, row.after)
			s, err := parse(row.schedule, from.Location())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			when := from
			for range row.want {
				when = s.next(when)
				got = append(got, when.In(from.Location()).Format("2006-01-02 15:04:05 -0700"))
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Fatalf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestNextFromAnywhere checks that the answer does not depend on where in the
// time between two slots the question is asked.
func TestNextFromAnywhere(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "UTC"} {
		loc := at(t, zone, "2026-01-01 00:00:00").Location()
		for _, text := range []string{"30 1 * * *", "*/20 2 * * *", "45 * * * *", "15 */2 * * *", "0 0 * * *", "59 23 * * *"} {
			s, err := parse(text, loc)
			if err != nil {
				t.Fatal(err)
			}
			for _, day := range []string{"2026-03-07 12:00:00", "2026-03-28 12:00:00", "2026-04-04 12:00:00", "2026-10-03 00:00:00", "2026-10-24 12:00:00", "2026-10-31 12:00:00"} {
				from := at(t, zone, day)
				want := s.next(from)
				for when := from; when.Before(from.Add(40 * time.Hour)); when = when.Add(7 * time.Minute) {
					if !when.Before(want) {
						want = s.next(want)
					}
					if got := s.next(when); !got.Equal(want) {
						t.Fatalf("%s in %s after %s: %s, want %s", text, zone, when, got.In(loc), want.In(loc))
					}
				}
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"blank", "   ", "empty"},
		{"bare zone", "TZ=UTC", "nothing after it"},
		{"bare empty zone", "TZ=", "nothing after it"},
		{"bare cron zone", "CRON_TZ=Europe/Berlin", "nothing after it"},
		{"zone and blanks", "TZ=UTC  ", "nothing after it"},
		{"empty zone", "TZ= 0 4 * * *", "time zone is empty"},
		{"unknown zone", "TZ=Europe/Bern 0 4 * * *", `unknown time zone "Europe/Bern"`},
		{"zone out of the folder", "TZ=../../etc/passwd 0 4 * * *", "unknown time zone"},
		{"two zones", "TZ=UTC TZ=UTC 0 4 * * *", "two time zones"},
		{"zone twice, bare", "TZ=UTC TZ=UTC", "two time zones"},
		{"every nothing", "@every", "needs a duration"},
		{"every zero", "@every 0s", "too short"},
		{"every negative", "@every -5m", "too short"},
		{"every nanosecond", "@every 1ns", "too short"},
		{"every half", "@every 1500ms", "not a whole number of seconds"},
		{"every word", "@every day", "needs a duration"},
		{"every huge", "@every 99999999999h", "needs a duration"},
		{"31 February", "0 0 31 2 *", "never fires"},
		{"31 of short months", "0 0 31 4,6,9,11 *", "never fires"},
		{"minute 60", "60 * * * *", "above maximum"},
		{"four fields", "* * * *", "expected 5 to 6 fields"},
		{"seven fields", "* * * * * * *", "expected 5 to 6 fields"},
		{"word", "tomorrow", "expected 5 to 6 fields"},
		{"descriptor", "@dayly", "is not known"},
		{"reboot", "@reboot", "is not known"},
		{"step zero", "*/0 * * * *", "step"},
		{"10 KB", strings.Repeat("1,", 5000) + "1 * * * *", "longer than 256"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, err := parse(row.text, time.UTC)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("parse = %+v, %v; want an error with %q", s, err, row.want)
			}
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
				t.Fatalf("error is no single short line: %q", err)
			}
		})
	}
}

func TestRecent(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	rows := []struct {
		name, text string
		after      time.Duration // before day
		n          int
		want       []time.Duration // before day
		older      bool
	}{
		{"nothing yet", "0 * * * *", 30 * time.Minute, 5, []time.Duration{0}, false},
		{"all of it", "0 * * * *", 3 * time.Hour, 5, []time.Duration{2 * time.Hour, time.Hour, 0}, false},
		{"the newest", "0 * * * *", 100 * 24 * time.Hour, 2, []time.Duration{time.Hour, 0}, true},
		{"ten years of seconds", "* * * * * *", 10 * 365 * 24 * time.Hour, 3, []time.Duration{2 * time.Second, time.Second, 0}, true},
		{"ten years of years", "0 0 1 1 *", 10 * 365 * 24 * time.Hour, 1, []time.Duration{120 * 24 * time.Hour}, true},
		{"every", "@every 10m", time.Hour, 2, []time.Duration{10 * time.Minute, 0}, true},
		{"every, all", "@every 25m", time.Hour, 9, []time.Duration{35 * time.Minute, 10 * time.Minute}, false},
		{"until is not after", "* * * * *", -time.Hour, 5, nil, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, err := parse(row.text, time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			slots, older := s.recent(day.Add(-row.after), day, row.n)
			var got []time.Duration
			for _, slot := range slots {
				got = append(got, day.Sub(slot))
			}
			if diff := cmp.Diff(row.want, got); diff != "" || older != row.older {
				t.Fatalf("older %v, want %v (-want +got)\n%s", older, row.older, diff)
			}
		})
	}
}

func FuzzSchedule(f *testing.F) {
	for _, seed := range []string{
		"* * * * *", "*/5 0-23/2 1,15 * MON-FRI", "30 2 29 2 *", "@every 1h", "@every 0s", "TZ=", "TZ=UTC", "CRON_TZ=UTC ",
		"TZ=Europe/Berlin 30 2 * * *", "TZ=UTC TZ=UTC", "@daily", "@", "0 0 31 2 *", "1-9999999999 * * * *", "*/9223372036854775807 * * * *", "? ? ? ? ?",
	} {
		f.Add(seed, int64(1774000000))
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := parse(text, berlin)
		if err != nil {
			return
		}
		when := time.Unix(unix%4_000_000_000, 0)
		for range 5 {
			next := s.next(when)
			if next.IsZero() {
				return
			}
			if !next.After(when) {
				t.Fatalf("%q: slot %s is not after %s", text, next, when)
			}
			when = next
		}
	})
}
