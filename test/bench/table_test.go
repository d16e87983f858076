package main

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	t.Parallel()
	var b table
	b.told(row{what: "a", reached: "1"})
	b.judged(true, row{what: "b", limit: "≤ 2", reached: "2", raw: "1 2 3"})
	if b.missed() {
		t.Error("nothing is missed yet")
	}
	b.judged(false, row{what: "c", limit: "≤ 2", reached: "3"})
	if !b.missed() {
		t.Error("a limit is missed")
	}
	var text strings.Builder
	b.print(&text)
	want := `| what | limit | reached | verdict | raw figures |
| --- | --- | --- | --- | --- |
| a    |       | 1       |         |  |
| b    | ≤ 2   | 2       | reached | 1 2 3 |
| c    | ≤ 2   | 3       | MISSED  |  |
`
	if text.String() != want {
		t.Errorf("got:\n%swant:\n%s", text.String(), want)
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{0: nil, 3: {3}, 2: {1, 9, 2}, 2.5: {9, 1, 2, 3}} {
		if got := median(values); got != want {
			t.Errorf("median of %v is %v, want %v", values, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`{"data":{"worker":17,"x":1}}`: 17, `{"worker":0}`: 0, `{}`: -1, `{"worker":x}`: -1, `{"worker":`: -1, ``: -1,
	} {
		if got := number([]byte(text), "worker"); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	if p := payload(7); len(p) != 256 || number(p, "worker") != 7 {
		t.Errorf("payload of %d bytes: %s", len(p), p)
	}
}
