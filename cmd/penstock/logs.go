package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
)

// newLogger makes the process's logger: JSON when asked for, short lines for
// people on a terminal and in run, logfmt as Dapr writes it otherwise.
func newLogger(w io.Writer, f *serveFlags) *slog.Logger {
	if _, ours := w.(*prefixed); ours && !f.LogAsJSON {
		return slog.New(forPeople(w, f, true))
	}
	return slog.New(newHandler(w, f)).With("app_id", f.AppID)
}

func forPeople(w io.Writer, f *serveFlags, plain bool) slog.Handler {
	return tint.NewTextHandler(w, &tint.Options{Level: f.level(), TimeFormat: time.TimeOnly, NoColor: plain})
}

func newHandler(w io.Writer, f *serveFlags) slog.Handler {
	o := &slog.HandlerOptions{Level: f.level(), ReplaceAttr: lowerLevel}
	switch {
	case f.LogAsJSON:
		return slog.NewJSONHandler(w, o)
	case isTerminal(w):
		return forPeople(w, f, false)
	default:
		return slog.NewTextHandler(w, o)
	}
}

// lowerLevel writes levels as log readers of Dapr expect them: "info".
func lowerLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey {
		return slog.String(a.Key, strings.ToLower(a.Value.String()))
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
