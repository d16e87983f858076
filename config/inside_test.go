package config

import (
	"strings"
	"testing"
)

// TestInside points at the word "here" of a value in each way of writing it.
func TestInside(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, yaml string }{
		{"plain", "k: a && here"},
		{"plain with a comment", "k: a && here # or there"},
		{"single quotes", "k: 'a && here'"},
		{"double quotes", `k: "a && here"`},
		{"in a flow mapping", `k: {x: 1, v: "a && here"}`},
		{"letters of several bytes", "k: 'äöü→ && here'"},
		{"literal", "k: |\n  a &&\n    b &&\n\n  here\n"},
		{"literal without its end", "k: |-\n   here"},
		{"folded", "k: >\n  a &&\n  b && here\n"},
		{"folded with a gap", "k: >-\n  a &&\n\n  b &&\n    here\n"},
		{"plain on two lines", "k: a &&\n   here && b\n"},
		{"quoted on two lines", "k: 'a &&\n   here'\n"},
		{"by an alias", "o: &o a && here\nk: *o"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := &reader{set: &Set{}, lines: strings.Split(row.yaml, "\n")}
			roots := r.parseYAML(row.yaml+"\n", 1)
			if len(roots) != 1 || len(r.problems) > 0 {
				t.Fatal(r.problems)
			}
			n := roots[0].pair("k").value
			if n.kind == tableNode {
				n = n.pair("v").value
			}
			before, _, _ := strings.Cut(n.text, "here")
			line := strings.Count(before, "\n") + 1
			column := len([]rune(before[strings.LastIndex(before, "\n")+1:])) + 1
			p := r.span(n.at, n.text).Inside(n.text, line, column)
			source := []rune(r.lines[p.Line-1])
			if got := string(source[p.Column-1:]); !strings.HasPrefix(got, "here") || p.More != "" || p.Text != strings.TrimRight(string(source), " ") {
				t.Errorf("%d:%d is %q", p.Line, p.Column, got)
			}
		})
	}
}

// TestInsideWithoutSource holds that a place is given even when the value is
// not to be found in the source.
func TestInsideWithoutSource(t *testing.T) {
	t.Parallel()
	p := Place{File: "f", Line: 3, Column: 4, Text: `k: "a\tb && here"`}
	if got := p.Inside("a\tb && here", 1, 8); got.Line != 3 || got.Column != 6 {
		t.Errorf("after an escape: %s, want the escape", got)
	}
	if got := (Place{File: "f", Line: 3, Column: 4}).Inside("words", 1, 3); got.Line != 3 || got.Column != 4 {
		t.Errorf("without the line: %s", got)
	}
	if got := (Place{}).Inside("words", 9, 9); got != (Place{}) {
		t.Errorf("nowhere: %s", got)
	}
}

func FuzzInside(f *testing.F) {
	f.Add("k: >\n  a\n\n  b", "a\nb", 1, 2)
	f.Add("k: '\xff'", "\xff", 2, -1)
	f.Fuzz(func(t *testing.T, source, value string, line, column int) {
		r := &reader{lines: strings.Split(source, "\n")}
		if line > 1<<20 || column > 1<<20 {
			return
		}
		p := r.span(r.place(1, 4), value).Inside(value, line, column)
		if p.Line < 1 || p.Line > len(r.lines) {
			t.Errorf("line %d of %d", p.Line, len(r.lines))
		}
	})
}
