package config

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/penstock-io/penstock/fault"
)

func TestParseBool(t *testing.T) {
	t.Parallel()
	for want, words := range map[bool]string{true: "y Yes TRUE t on 1 YES", false: "n No FALSE f off 0 OFF"} {
		for w := range strings.FieldsSeq(words) {
			if got, err := ParseBool(" " + w + "\n"); got != want || err != nil {
				t.Error(w, got, err)
			}
		}
	}
	for _, w := range []string{"", "2", "yess", "ja"} {
		if _, err := ParseBool(w); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Error(w, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"5": 5 * time.Second, "1.5": 1500 * time.Millisecond, "-1": -time.Second, "1m30s": 90 * time.Second, " 200ms ": 200 * time.Millisecond, "0": 0,
	} {
		if got, err := ParseDuration(in); got != want || err != nil {
			t.Error(in, got, err)
		}
	}
	for _, in := range []string{"", "5 s", "soon", "1d", "1e3", "99999999999999999999", "0x5"} {
		if _, err := ParseDuration(in); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Error(in, err)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"1000": 1000, "64Ki": 65536, "4Mi": 4 << 20, "1G": 1e9, "10KB": 10_000, "10 KiB": 10240, "1k": 1000, "1.5Ki": 1536,
		"-1": -1, "0": 0, "1e3": 1000, "8b": 8, "1Pi": 1 << 50, "0.1": 1, "9223372036854775807": 9223372036854775807,
	} {
		if got, err := ParseSize(in); got != want || err != nil {
			t.Error(in, got, err)
		}
	}
	for _, in := range []string{"", "Ki", "4 barrels", "1i", "1iB", "1KiKi", "9223372036854775808", "10000Pi", "1e300", "NaN", "0x10", "1 2", "--1"} {
		if got, err := ParseSize(in); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Error(in, got, err)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"schedule", "maxRetries", "Component", "url", "name"}
	for in, want := range map[string]string{
		"schedul": "schedule", "shcedule": "schedule", "max_retries": "maxRetries", "Componnet": "Component",
		"uri": "url", "ulr": "url", "nmae": "name", "colour": "", "": "", "x": "", strings.Repeat("n", 500): "",
	} {
		if got := Nearest(in, known); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := DidYouMean("colour", known); got != "known: schedule, maxRetries, Component, url, name" {
		t.Error(got)
	}
	if got := DidYouMean("colour", make([]string, 13)); got != "" {
		t.Error(got)
	}
}

// TestDistance holds that the distance is symmetric and zero only for equals.
func TestDistance(t *testing.T) {
	t.Parallel()
	same := func(a, b string) bool {
		x, y := []rune(a), []rune(b)
		d := distance(x, y)
		return d == distance(y, x) && (d == 0) == (string(x) == string(y)) && d <= max(len(x), len(y))
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
}

func TestScalars(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]scalar{
		"yes": {boolScalar, "true"}, "Off": {boolScalar, "false"}, "n": {boolScalar, "false"}, "yeS": {textScalar, "yeS"},
		"~": {nullScalar, ""}, "null": {nullScalar, ""}, "1e3": {numberScalar, "1000"}, "0x10": {numberScalar, "16"},
		"0b11": {numberScalar, "3"}, "010": {numberScalar, "8"}, "1_000": {numberScalar, "1000"}, "+5": {numberScalar, "5"},
		"9223372036854775808": {numberScalar, "9223372036854775808"}, "123456789012345678901234567890": {numberScalar, "123456789012345678901234567890"},
		"1.10": {numberScalar, "1.1"}, ".5": {numberScalar, "0.5"}, "1e21": {numberScalar, "1e+21"}, "1e999": {textScalar, "1e999"},
		".inf": {textScalar, ".inf"}, "2026-01-02": {textScalar, "2026-01-02"}, "1:30": {textScalar, "1:30"}, "-": {textScalar, "-"}, "1.2.3": {textScalar, "1.2.3"},
	} {
		if got := (&node{text: in}).scalar(); got != want {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
}

func TestProblemMarksTheColumn(t *testing.T) {
	t.Parallel()
	p := Problem{Place: Place{File: "a.yaml", Line: 7, Column: 4, Text: "\tä: x"}, Text: "wrong", Hint: "do it right"}
	want := "a.yaml:7:4: wrong; do it right\n     7 | \tä: x\n       | \t  ^"
	if got := p.String(); got != want {
		t.Errorf("%q", got)
	}
}

func FuzzValues(f *testing.F) {
	for _, s := range []string{"", "1", "-1.5", "1e3", "64Ki", "1m30s", "0x1p-2", "on", "1_0", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = ParseBool(s)
		if d, err := ParseDuration(s); err == nil {
			if again, err := ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("duration %q: %v, %v", s, d, again)
			}
		}
		if n, err := ParseSize(s); err == nil && strings.HasPrefix(strings.TrimSpace(s), "-") && n > 0 {
			t.Errorf("size %q: %d", s, n)
		}
		got := (&node{text: s}).scalar()
		if got.kind == numberScalar && !json.Valid([]byte(got.text)) {
			t.Errorf("%q is the number %q", s, got.text)
		}
		if len(s) < 64 && Nearest(s, []string{s + "x", s}) != s && s != "" && plainWord(s) != "" {
			t.Errorf("%q is not nearest to itself", s)
		}
	})
}
