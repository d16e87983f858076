package sqlite

import (
	"errors"
	"syscall"

	driver "modernc.org/sqlite"
	code "modernc.org/sqlite/lib"

	"github.com/penstock-io/penstock/fault"
)

// classify gives an error of SQLite its kind and a text that says what to do.
// Errors that have a kind already keep it.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	e, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return fault.As(fault.KindOf(err), err)
	}
	switch e.Code() & 0xff {
	case code.SQLITE_FULL:
		return fault.New(fault.Exhausted, "the disk is full: %w", err)
	case code.SQLITE_NOMEM:
		return fault.New(fault.Exhausted, "out of memory: %w", err)
	case code.SQLITE_BUSY, code.SQLITE_LOCKED:
		return fault.New(fault.Unavailable, "another process holds the lock: %w", err)
	case code.SQLITE_READONLY, code.SQLITE_CANTOPEN, code.SQLITE_PERM:
		return fault.New(fault.Unavailable, "the file or its folder cannot be written: %w", err)
	case code.SQLITE_IOERR:
		return fault.New(fault.Unavailable, "the disk failed: %w", err)
	case code.SQLITE_CORRUPT:
		return fault.New(fault.Invalid, "the file is damaged; move it away or restore a copy: %w", err)
	case code.SQLITE_NOTADB:
		return fault.New(fault.Invalid, "the file is not a SQLite database; name another file: %w", err)
	case code.SQLITE_TOOBIG:
		return fault.New(fault.Invalid, "the value is too big: %w", err)
	case code.SQLITE_CONSTRAINT:
		return fault.New(fault.Conflict, "%w", err)
	}
	return fault.As(fault.Internal, err)
}

// classifyOS does the same for errors of opening the file.
func classifyOS(err error) error {
	switch {
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return fault.As(fault.Invalid, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE):
		return fault.As(fault.Exhausted, err)
	}
	return err
}

// Classify gives an error that came from the pool of [DB.Read] its kind, as
// Write does for its own. It returns nil when err is nil.
func Classify(err error) error { return classify(err) }
