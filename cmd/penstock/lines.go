package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// prefixed writes whole lines with a prefix, so that two logs stay readable
// side by side.
type prefixed struct {
	w      io.Writer
	lock   *sync.Mutex
	prefix string
	rest   []byte
}

// Write keeps what is not yet a whole line; lines above 64 KiB are cut in two.
func (p *prefixed) Write(b []byte) (int, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.rest = append(p.rest, b...)
	for {
		n, line, err := bufio.ScanLines(p.rest, false)
		if err != nil || n == 0 {
			if len(p.rest) < 64<<10 {
				return len(b), nil
			}
			n, line = len(p.rest), p.rest
		}
		if _, err := fmt.Fprintf(p.w, "%s%s\n", p.prefix, line); err != nil {
			return 0, err
		}
		p.rest = p.rest[n:]
	}
}

func (p *prefixed) flush() {
	p.lock.Lock()
	defer p.lock.Unlock()
	if len(p.rest) > 0 {
		fmt.Fprintf(p.w, "%s%s\n", p.prefix, p.rest)
		p.rest = nil
	}
}

// output is where one log of run goes: the terminal, a file or both.
type output struct {
	console *prefixed // nil: not there
	file    *os.File  // nil: none
}

// Write goes on with the file when the terminal is gone, and the other way
// round: the error is that of the last.
func (o *output) Write(b []byte) (int, error) {
	var failed error
	if o.console != nil {
		_, failed = o.console.Write(b)
	}
	if o.file != nil {
		_, err := o.file.Write(b)
		failed = errors.Join(failed, err)
	}
	return len(b), failed
}

// close writes what is left. That a log could not be finished is told by nobody:
// there is no log to tell it.
func (o *output) close() {
	if o.console != nil {
		o.console.flush()
	}
	if o.file != nil {
		_ = o.file.Close()
	}
}

// path is that of the file, empty when there is none.
func (o *output) path() string {
	if o.file == nil {
		return ""
	}
	return o.file.Name()
}

// logNames returns the files in a folder that the app's output and Penstock's
// log go to when both start now. The names are those of Dapr, whose tools look
// for them.
func logNames(folder, name string, now time.Time) (app, own string) {
	stamp := now.Format("20060102150405")
	return filepath.Join(folder, name+"_app_"+stamp+".log"), filepath.Join(folder, name+"_daprd_"+stamp+".log")
}

// logFile makes a file for a log, and its folder. An empty name is none.
func logFile(name string) (*os.File, error) {
	if name == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, fault.Wrap(err, "make folder for logs")
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return f, fault.Wrap(err, "make log file")
}
