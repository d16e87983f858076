package exec

import (
	"bytes"
	"errors"
	"fmt"
)

var errTooLong = errors.New("output is too long")

// limited keeps output up to a limit and then calls full.
type limited struct {
	buf   bytes.Buffer
	limit int
	over  bool
	full  func()
}

// Write refuses what is beyond the limit, which breaks the program's pipe.
func (l *limited) Write(p []byte) (int, error) {
	if l.buf.Len()+len(p) > l.limit {
		l.over = true
		l.full()
		return 0, errTooLong
	}
	return l.buf.Write(p)
}

// tail keeps the end of what is written.
type tail struct {
	buf []byte
	cut bool
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > stderrTail {
		p, t.cut = p[len(p)-stderrTail:], true
	}
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - stderrTail; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
		t.cut = true
	}
	return n, nil
}

// String returns the end on one line, to be put behind an error.
func (t *tail) String() string {
	text := bytes.TrimSpace(t.buf)
	if len(text) == 0 {
		return ""
	}
	dots := ""
	if t.cut {
		dots = "..."
	}
	return fmt.Sprintf("; it wrote %s%q", dots, text)
}
