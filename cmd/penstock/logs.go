package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/lmittmann/tint"

	"github.com/penstock-io/penstock/telemetry"
)

// newLogger makes the process's logger: JSON when asked for, short lines for
// people on a terminal and in run without a file, logfmt as Dapr writes it
// otherwise.
func newLogger(w io.Writer, f *serveFlags) *slog.Logger {
	levels := telemetry.NewLevels(f.level())
	if o, ours := w.(*output); ours && o.file == nil && !f.LogAsJSON {
		return levels.Open(forPeople(w, true), corePart)
	}
	return levels.Open(newHandler(w, f), corePart).With("app_id", f.AppID)
}

// corePart is the part of the log whose lines are about the instance as a whole.
const corePart = "runtime"

func forPeople(w io.Writer, plain bool) slog.Handler {
	return tint.NewTextHandler(w, &tint.Options{Level: slog.LevelDebug, TimeFormat: time.TimeOnly, NoColor: plain, ReplaceAttr: forEyes})
}

func newHandler(w io.Writer, f *serveFlags) slog.Handler {
	o := &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: forMachines}
	switch {
	case f.LogAsJSON:
		return slog.NewJSONHandler(w, o)
	case isTerminal(w):
		return forPeople(w, false)
	default:
		return slog.NewTextHandler(w, o)
	}
}

// forMachines writes levels as log readers of Dapr expect them, "info", and
// shortens the rest.
func forMachines(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey {
		return slog.String(a.Key, strings.ToLower(a.Value.String()))
	}
	return shorten(groups, a)
}

// forEyes shows control characters of a message, which tint does for all else,
// and shortens. Line breaks stay: reports of configurations have them.
func forEyes(groups []string, a slog.Attr) slog.Attr {
	text := a.Value.String()
	if len(groups) > 0 || a.Key != slog.MessageKey || !strings.ContainsFunc(text, isHidden) {
		return shorten(groups, a)
	}
	var out strings.Builder
	for _, c := range text {
		if isHidden(c) {
			fmt.Fprintf(&out, "\\u%04x", c)
			continue
		}
		out.WriteRune(c)
	}
	return slog.String(a.Key, out.String())
}

func isHidden(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' }

// maxLogged bounds the text of one value in a log line, in bytes. What others
// send stands in the log, such as names of topics and what an error is about.
const maxLogged = 8 << 10

// shorten cuts texts and errors that are longer than maxLogged and says so.
// Messages stay whole: they are our own, and may list every error of a reload.
func shorten(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.MessageKey {
		return a
	}
	text := ""
	switch v := a.Value.Any().(type) {
	case string:
		text = v
	case error:
		text = v.Error()
	}
	if len(text) <= maxLogged {
		return a
	}
	cut := strings.ToValidUTF8(text[:maxLogged], "")
	return slog.String(a.Key, fmt.Sprintf("%s... (%d bytes)", cut, len(text)))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
