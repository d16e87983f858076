package kafka

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNote(t *testing.T) {
	t.Parallel()
	for name, done := range map[string][]span{
		"nothing":     nil,
		"one":         {{101, 102}},
		"at once":     {{100, 105}},
		"some":        {{103, 104}, {110, 200}, {100_000, 100_001}},
		"far":         {{1 << 40, 1<<40 + 1}},
		"every other": every(100, 1000),
	} {
		text := note(100, done)
		if len(text) > noteBytes {
			t.Errorf("%s: the note has %d bytes, at most %d", name, len(text), noteBytes)
		}
		if d := cmp.Diff(done, noted(100, text), cmp.AllowUnexported(span{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// every is every other one of n offsets.
func every(from int64, n int) (all []span) {
	for i := range int64(n) {
		all = append(all, span{from + 2*i + 1, from + 2*i + 2})
	}
	return all
}

// TestNoteIsBounded has more to tell than brokers take: the first of it is told.
func TestNoteIsBounded(t *testing.T) {
	t.Parallel()
	done := every(0, 10_000)
	text := note(0, done)
	if len(text) > noteBytes || len(text) < noteBytes-10 {
		t.Errorf("the note has %d bytes, at most %d", len(text), noteBytes)
	}
	got := noted(0, text)
	if d := cmp.Diff(done[:len(got)], got, cmp.AllowUnexported(span{})); d != "" || len(got) < 1000 {
		t.Errorf("%d are told: %s", len(got), d)
	}
}

// TestNoteOfOthers reads what Penstock did not write: it tells nothing.
func TestNoteOfOthers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "me@host", noteMark, noteMark + "&&&", noteMark + "AQ", noteMark + "/////////////////w"} {
		if got := noted(10, text); got != nil {
			t.Errorf("%q tells of %v", text, got)
		}
	}
}
