package redis

import (
	_ "embed"
	"strconv"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/state"
)

// captured is what Dapr's component made of an empty database; see its head.
//
//go:embed testdata/dapr-1.18.golden
var captured string

// commands are the words of each line of a capture.
func commands(t *testing.T, text string) (out [][]string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		var words []string
		for line != "" {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			word, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(err)
			}
			words, line = append(words, word), strings.TrimSpace(line[len(quoted):])
		}
		out = append(out, words)
	}
	return out
}

// TestReadsDaprsHashes reads what Dapr's component wrote, changes it with the
// ETags found there, and makes the same fields of the same values.
func TestReadsDaprsHashes(t *testing.T) {
	t.Parallel()
	theirs, ours := miniredis.RunT(t), miniredis.RunT(t)
	a, b := opened(t, theirs.Addr()), opened(t, ours.Addr())
	for _, c := range commands(t, captured) {
		if err := a.c.Do(t.Context(), a.c.B().Arbitrary(c...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, c := range commands(t, captured) {
		if c[0] != "HSET" {
			continue
		}
		n++
		key, value := c[1], c[3]
		it := get(t, a, key)
		if string(it.Value) != value || it.ETag != "1" || it.Expires.IsZero() != (key != "shop||ttl") {
			t.Errorf("%s: %+v, want %q", key, it, value)
		}
		change := state.Change{Key: key, Value: []byte("1"), ETag: &it.ETag}
		if err := a.Apply(t.Context(), []state.Change{change}); err != nil {
			t.Errorf("%s: save with Dapr's ETag: %v", key, err)
		}
		if got := theirs.HGet(key, "version"); got != "2" {
			t.Errorf("%s: version %q, want 2", key, got)
		}
		fresh := state.Change{Key: key, Value: []byte(value), FirstWrite: key == "shop||first"}
		if err := b.Apply(t.Context(), []state.Change{fresh}); err != nil {
			t.Fatal(err)
		}
		names, _ := ours.HKeys(key)
		if _, err := strconv.Atoi(ours.HGet(key, "version")); err != nil {
			t.Errorf("%s: Dapr cannot read the version: %v", key, err)
		}
		want, _ := theirs.HKeys(key)
		if diff := cmp.Diff(want, names); diff != "" || ours.HGet(key, "data") != value {
			t.Errorf("%s: fields (-Dapr's +ours)\n%s\ndata %q", key, diff, ours.HGet(key, "data"))
		}
	}
	if n != 9 {
		t.Errorf("%d items in the capture", n)
	}
}
