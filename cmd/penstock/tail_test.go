package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
)

func TestToTail(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a line of a long log\n", 10_000)
	for name, c := range map[string]struct {
		text  string
		lines int
		want  string
	}{
		"last":                {"a\nb\nc\n", 1, "c\n"},
		"last two":            {"a\nb\nc\n", 2, "b\nc\n"},
		"without end":         {"a\nb\nc", 2, "b\nc"},
		"as many":             {"a\nb\n", 2, "a\nb\n"},
		"more than there are": {"a\nb\n", 9, "a\nb\n"},
		"none":                {"a\nb\n", 0, ""},
		"empty file":          {"", 3, ""},
		"empty lines":         {"a\n\n\n", 2, "\n\n"},
		"across blocks":       {long, 9_000, long[:9_000*21]},
		"more blocks":         {"first\n" + long, 10_001, "first\n" + long},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := toTail(f, c.lines); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			if err != nil || string(got) != c.want {
				t.Errorf("%d bytes, want %d: %v", len(got), len(c.want), err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	got := names([]config.RunApp{{ID: "a"}, {ID: "b"}, {ID: "a"}, {ID: "a"}, {ID: "a-2"}})
	if diff := cmp.Diff([]string{"a", "b", "a-3", "a-4", "a-2"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 60 * time.Second: "1m", 119 * time.Minute: "1h", 49 * time.Hour: "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}

func TestNewest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{
		"shop_app_20260101000000.log", "shop_app_20260201000000.log", "shop_app_backup.log", "shop_app_2_app_20270101000000.log", "z.log",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := newest(dir, "shop_app_"); filepath.Base(got) != "shop_app_20260201000000.log" {
		t.Error(got)
	}
	if got := newest(dir, "other_app_"); got != "" {
		t.Error(got)
	}
}
