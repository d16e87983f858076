package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
)

func TestLogLinesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü\n\x1b[31m", 1<<20)
	handlers := map[string]func(io.Writer) slog.Handler{
		"logfmt": func(w io.Writer) slog.Handler { return newHandler(w, &serveFlags{}) },
		"json":   func(w io.Writer) slog.Handler { return newHandler(w, &serveFlags{LogAsJSON: true}) },
		"people": func(w io.Writer) slog.Handler { return forPeople(w, true) },
	}
	// A report has several lines where people read it.
	breaks := map[string]int{"logfmt": 1, "json": 1, "people": 2}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := slog.New(handler(&out)).With("before", long)
			log.Error("report\nof \x1b[31mlines", "text", long, "error", errors.New(long), slog.Group("in", "group", long), "short", "kept", "count", 7)
			line := out.String()
			if len(line) > 4*8*maxLogged || strings.Count(line, "\n") != breaks[name] || strings.Contains(line, "\x1b") {
				t.Errorf("line of %d bytes with %d breaks", len(line), strings.Count(line, "\n"))
			}
			if n := strings.Count(line, "... (8388608 bytes)"); n != 4 || !strings.Contains(line, "kept") || !strings.Contains(line, "7") {
				t.Errorf("%d values are marked as cut, want 4; end of the line: %s", n, line[max(0, len(line)-200):])
			}
		})
	}
}
