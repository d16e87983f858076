package sqlite

import (
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const defaultBusy = 5 * time.Second

// source is a connection string, understood.
type source struct {
	path string // absolute
	busy time.Duration
}

// parse reads a plain path, or file:path?params in the forms that SQLite
// itself takes.
func parse(text, dataDir string) (source, error) {
	src := source{busy: defaultBusy}
	if text == "" {
		text = filepath.Join(dataDir, DefaultFile)
	}
	path, query, _ := strings.Cut(text, "?")
	if rest, ok := strings.CutPrefix(path, "file:"); ok {
		var err error
		if path, err = url.PathUnescape(rest); err != nil {
			return src, fault.New(fault.Invalid, "parse connection string %q: %w", text, err)
		}
		if host, ok := strings.CutPrefix(path, "//"); ok {
			name, tail, _ := strings.Cut(host, "/")
			if name != "" && name != "localhost" {
				return src, fault.New(fault.Invalid, "parse connection string %q: it names the host %q; write file:/path or file:///path", text, name)
			}
			path = "/" + tail
		}
	}
	if err := src.params(query); err != nil {
		return src, fault.Wrap(err, "parse connection string %q", text)
	}
	switch {
	case path == ":memory:":
		return src, fault.New(fault.Invalid, "parse connection string %q: an in-memory database is lost with the process; name a file", text)
	case path == "" || strings.ContainsRune(path, 0):
		return src, fault.New(fault.Invalid, "parse connection string %q: it names no file", text)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return src, fault.Wrap(err, "find folder of %q", path)
	}
	src.path = resolve(abs)
	return src, nil
}

// resolve follows symbolic links as far as the path exists, so that two names
// of one file are one DB.
func resolve(abs string) string {
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(dir, filepath.Base(abs))
	}
	return abs
}

// params takes what means something to us, lets pass what we always do our own
// way, and refuses what would be a different database.
func (s *source) params(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fault.As(fault.Invalid, err)
	}
	for name, all := range values {
		for _, v := range all {
			if err := s.param(name, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *source) param(name, value string) error {
	switch strings.ToLower(name) {
	case "_pragma":
		pragma, arg, _ := strings.Cut(strings.TrimSuffix(value, ")"), "(")
		if pragma == value {
			pragma, arg, _ = strings.Cut(value, "=")
		}
		if strings.EqualFold(strings.TrimSpace(pragma), "busy_timeout") {
			return s.busyTimeout(arg)
		}
	case "_busy_timeout", "_timeout":
		return s.busyTimeout(value)
	case "mode":
		if value != "rwc" && value != "rw" {
			return fault.New(fault.Invalid, "mode=%s is not possible; the file is read and written", value)
		}
	case "immutable", "vfs", "nolock":
		return fault.New(fault.Invalid, "parameter %q is not possible; leave it out", name)
	}
	return nil
}

func (s *source) busyTimeout(text string) error {
	ms, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || ms < 0 || ms > int(time.Hour/time.Millisecond) {
		return fault.New(fault.Invalid, "busy timeout %q is not a number of milliseconds up to an hour", text)
	}
	s.busy = time.Duration(ms) * time.Millisecond
	return nil
}

// WithBusyTimeout returns a connection string that waits for other processes for
// d, unless it says itself how long; an empty one becomes that of
// [DefaultFile].
func WithBusyTimeout(env component.Env, path string, d time.Duration) string {
	if path == "" {
		path = filepath.Join(env.DataDir, DefaultFile)
	}
	if d <= 0 || strings.Contains(path, "busy_timeout") || strings.Contains(path, "_timeout=") {
		return path
	}
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return path + sep + "_busy_timeout=" + strconv.FormatInt(d.Milliseconds(), 10)
}
