package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// row is one line of the table.
type row struct {
	what, limit, reached string
	// verdict is "reached", "MISSED", or nothing for what has no limit.
	verdict string
	// raw is what the figure was made of.
	raw string
}

// table is what the run found, in Markdown, so that it can be pasted as it is.
type table struct{ rows []row }

// judged adds a row with a limit.
func (t *table) judged(ok bool, r row) {
	r.verdict = "MISSED"
	if ok {
		r.verdict = "reached"
	}
	t.rows = append(t.rows, r)
}

// told adds a row for information.
func (t *table) told(r row) { t.rows = append(t.rows, r) }

func (t *table) missed() bool {
	return slices.ContainsFunc(t.rows, func(r row) bool { return r.verdict == "MISSED" })
}

func (t *table) print(w io.Writer) {
	lines := [][]string{{"what", "limit", "reached", "verdict", "raw figures"}}
	for _, r := range t.rows {
		lines = append(lines, []string{r.what, r.limit, r.reached, r.verdict, r.raw})
	}
	widths := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, cell := range l[:len(l)-1] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, l := range lines {
		for i, cell := range l {
			fmt.Fprint(w, "| ", cell, strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))), " ")
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			fmt.Fprintln(w, "|"+strings.Repeat(" --- |", len(l)))
		}
	}
}

// median of any number of values.
func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// each formats values with one verb and puts spaces between them.
func each(format string, values []float64) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprintf(format, v)
	}
	return strings.Join(texts, " ")
}
