//go:build !unix

package http

import (
	"errors"
	"os"
	"time"
)

// glance needs nothing here.
type glance struct{}

// quiet tells whether there is nothing to read on an idle connection, not even
// its end. It waits for a millisecond, so one that was used just now is not
// looked at.
func quiet(l *line) bool {
	if time.Since(l.since) < 100*time.Millisecond {
		return true
	}
	l.limit.N = 1
	if err := l.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return false
	}
	_, err := l.in.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded)
}
