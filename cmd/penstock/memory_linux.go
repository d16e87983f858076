package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseCode takes the program's own code and constants out of the resident
// memory. What is used again comes back page by page from the page cache; what
// only the start used, which is most, does not.
func releaseCode() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if from, size, ok := readOnly(line, self); ok {
			// It is only a hint: refused, the pages stay.
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, size, syscall.MADV_DONTNEED)
		}
	}
}

// readOnly finds the span of a line of /proc/PID/maps when it maps the file and
// cannot be written, so that dropping it loses nothing.
func readOnly(line, file string) (from, size uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[5] != file || len(fields[1]) != 4 || fields[1][0] != 'r' || fields[1][1] == 'w' {
		return 0, 0, false
	}
	low, high, _ := strings.Cut(fields[0], "-")
	a, err := strconv.ParseUint(low, 16, strconv.IntSize)
	if err != nil {
		return 0, 0, false
	}
	b, err := strconv.ParseUint(high, 16, strconv.IntSize)
	if err != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), uintptr(b - a), true
}
