package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Bounds of what is read from disk.
const (
	maxFileBytes = 4 << 20
	maxFiles     = 10_000 // in one folder
)

// source is one file that was read, or why it could not be.
type source struct {
	name    string
	data    []byte
	config  bool // given as a configuration file
	draft   bool // a text that is being written
	problem *Problem
}

func failed(name, hint, format string, args ...any) source {
	return source{name: name, problem: &Problem{Place: Place{File: name}, Text: fmt.Sprintf(format, args...), Hint: hint}}
}

// gather reads every file that the options name. Configuration files come first.
func gather(o Options) (sources []source) {
	for _, name := range o.Configs {
		s := readFile(name)
		s.config = true
		sources = append(sources, s)
	}
	for _, folder := range o.Resources {
		info, err := os.Stat(folder)
		switch {
		case err != nil:
			sources = append(sources, failed(folder, "", "read resources: %s", cause(err)))
		case info.IsDir():
			sources = append(sources, readFolder(folder)...)
		default:
			sources = append(sources, readFile(folder))
		}
	}
	return sources
}

func readFolder(folder string) (sources []source) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return []source{failed(folder, "", "read resources: %s", cause(err))}
	}
	for _, e := range entries {
		ext := strings.ToLower(filepath.Ext(e.Name()))
		if e.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		if len(sources) == maxFiles {
			return append(sources, failed(folder, "use several folders", "the folder has more than %d YAML files", maxFiles))
		}
		name := filepath.Join(folder, e.Name())
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			continue // a link to a folder
		}
		sources = append(sources, readFile(name))
	}
	return sources
}

// readFile reads a regular file of bounded size. It never waits, as opening a
// pipe would.
func readFile(name string) source {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return failed(name, "", "read file: it is %s, not a regular file", modeWord(info.Mode()))
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if link, lerr := os.Readlink(name); lerr == nil && errors.Is(err, fs.ErrNotExist) {
			return failed(name, "", "read file: it is a link to %s, which does not exist", link)
		}
		return failed(name, "", "read file: %s", cause(err))
	}
	defer func() { _ = f.Close() }() // nothing was written
	// It may have been swapped since the first look.
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return failed(name, "", "read file: it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return failed(name, "", "read file: %s", cause(err))
	}
	if len(data) > maxFileBytes {
		return failed(name, "split it into several files", "read file: it is larger than %d MiB", maxFileBytes>>20)
	}
	return source{name: name, data: data}
}

func modeWord(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// cause is the reason of a file error without the path, which the place has.
func cause(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

// sum is a digest of everything read, names and failures included.
func sum(sources []source) string {
	h := sha256.New()
	for _, s := range sources {
		text := ""
		if s.problem != nil {
			text = s.problem.Text
		}
		_, _ = fmt.Fprintf(h, "%q %q %t %d\n", s.name, text, s.config, len(s.data)) // a hash takes everything
		_, _ = h.Write(s.data)
	}
	return hex.EncodeToString(h.Sum(nil))
}
