package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// About returns all that the books say of one event, a line for each entry in the
// order of time, with the faults between.
func (b Books) About(id string) string {
	type line struct {
		at   time.Duration
		text string
	}
	var lines []line
	books := []struct {
		name    string
		entries []Entry
	}{{"producer", b.Producer}, {"app", b.App}, {"broker", b.Broker}, {"sink", b.Sink}, {"fault", b.Faults}}
	for _, book := range books {
		for _, e := range book.entries {
			if e.ID != id && book.name != "fault" && !slices.Contains(e.IDs, id) {
				continue
			}
			text := fmt.Sprintf("  %8s  %-8s %s", e.At.Round(time.Millisecond), book.name, e.What)
			if e.Call != 0 {
				text += fmt.Sprintf(", call %d of %s, code %d", e.Call, e.Replica, e.Code)
			}
			lines = append(lines, line{e.At, strings.TrimRight(text+" "+e.Note, " ")})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l.text
	}
	return strings.Join(out, "\n")
}

// suspects are up to n events that a problem is about.
func (r *Report) suspects(n int) []string {
	ids := slices.Concat(r.Lost, r.Unsettled, r.Disorder, r.Letter, r.Phantom, r.Early)
	if len(r.twice()) > 0 {
		ids = append(ids, r.Twice...)
	}
	for i, text := range ids {
		ids[i], _, _ = strings.Cut(text, " ") // a problem begins with the event's id
	}
	return ids[:min(n, len(ids))]
}
