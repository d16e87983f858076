// Package fault gives every error that leaves a package a kind.
//
// A caller makes errors with [New] and [Wrap] and reads them with [KindOf],
// [Retriable] and [RetryAfter]. Retry, circuit breaking, HTTP status, gRPC code
// and metric labels all read the kind and nothing else, so one table decides
// what the outside world sees.
//
// The package promises that a kind, once given, survives any later wrapping
// with %w, and that [KindOf] never returns an unknown value.
package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// Error is an error with a kind. Its text is "verb object: cause", in lower
// case and without a full stop.
type Error struct {
	// Kind says what class of thing went wrong.
	Kind Kind
	// After is how long the other side asked us to wait before the next try;
	// zero when it did not say.
	After time.Duration

	text  string
	cause error
}

// New makes an error of kind k. The format takes %w like [fmt.Errorf].
func New(k Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, text: err.Error(), cause: errors.Unwrap(err)}
}

// Wrap adds the words "verb object" in front of err and keeps its kind. It
// returns nil when err is nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{
		Kind:  KindOf(err),
		After: RetryAfter(err),
		text:  fmt.Sprintf(format, args...) + ": " + err.Error(),
		cause: err,
	}
}

// As gives err the kind k, keeping its text. It returns nil when err is nil.
func As(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, After: RetryAfter(err), text: err.Error(), cause: err}
}

// WithRetryAfter notes that the other side asked for a pause of d. It returns
// nil when err is nil.
func WithRetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), After: d, text: err.Error(), cause: err}
}

// Error returns the text.
func (e *Error) Error() string { return e.text }

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// KindOf returns the kind of the outermost [Error] in err's chain. Errors of
// the standard library that have an obvious kind get it; anything else is
// [Internal]. KindOf(nil) is [Internal] too: ask only about errors.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Unavailable
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrExist):
		return Conflict
	case errors.Is(err, fs.ErrPermission):
		return Denied
	}
	return kindOfSystem(err)
}

// kindOfSystem is about errors of the network and of the operating system. A
// bare system error number looks like a network error too and is not one.
func kindOfSystem(err error) Kind {
	ne, ok := errors.AsType[net.Error](err)
	if !ok {
		return Internal
	}
	if errno, bare := ne.(syscall.Errno); bare {
		if errno == syscall.ENOSPC || errno == syscall.EDQUOT {
			return Exhausted
		}
		return Internal
	}
	if ne.Timeout() {
		return Timeout
	}
	return Unavailable
}

// RetryAfter returns the pause that the other side asked for, or zero.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.After
	}
	return 0
}

// Retriable tells whether doing the same again may succeed.
func Retriable(err error) bool { return err != nil && KindOf(err).Retriable() }
