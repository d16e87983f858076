package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestReadOnly(t *testing.T) {
	t.Parallel()
	const file = "/usr/bin/penstock"
	rows := []struct {
		name, line string
		want       bool
	}{
		{"code", "00401000-01064000 r-xp 00001000 fe:00 42  " + file + "\n", true},
		{"constants", "01064000-01dc7000 r--p 00c64000 fe:00 42  " + file + "\n", true},
		{"data", "01dc7000-01e5f000 rw-p 019c7000 fe:00 42  " + file + "\n", false},
		{"no access", "01dc7000-01e5f000 ---p 019c7000 fe:00 42  " + file + "\n", false},
		{"another file", "00401000-01064000 r-xp 00001000 fe:00 42  /lib/libc.so\n", false},
		{"no file", "c000000000-c000400000 rw-p 00000000 00:00 0\n", false},
		{"nonsense", "x-y r-xp 00001000 fe:00 42  " + file + "\n", false},
		{"backwards", "01064000-00401000 r-xp 00001000 fe:00 42  " + file + "\n", false},
	}
	for _, r := range rows {
		if _, _, got := readOnly(r.line, file); got != r.want {
			t.Errorf("%s: %v, want %v", r.name, got, r.want)
		}
	}
	if from, size, _ := readOnly(rows[0].line, file); from != 0x401000 || size != 0xc63000 {
		t.Errorf("from %#x, %#x bytes", from, size)
	}
}

// TestReleaseCode drops the code of the running test, which goes on as before.
func TestReleaseCode(t *testing.T) {
	before := residentFile(t)
	releaseCode()
	if after := residentFile(t); after > before/2 {
		t.Errorf("%d kB of the file were resident before, %d kB after", before, after)
	}
}

// residentFile is RssFile of the process in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatal("no RssFile")
	return 0
}
