package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/penstock-io/penstock/fault"
)

// Classify gives an error of the client library its kind, by its SQLSTATE where
// the server has sent one. It returns nil when err is nil, and errors that have a
// kind as they are.
func Classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fault.As(kindOf(e.Code), err)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.As(fault.KindOf(err), err)
	case errors.Is(err, pgx.ErrNoRows):
		return fault.As(fault.NotFound, err)
	case broken(err):
		return fault.As(fault.Unavailable, oneLine(err))
	}
	if k := fault.KindOf(err); k != fault.Internal {
		return fault.As(k, err)
	}
	return fault.As(fault.Invalid, oneLine(err)) // the library refused it before it was sent
}

// broken tells whether the connection is at fault.
func broken(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	text := err.Error()
	for _, sign := range []string{"EOF", "conn closed", "closed pool", "conn busy", "connection reset", "broken pipe", "failed to connect"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}

// oneLine puts the tries of several addresses, which the library writes below
// each other, behind each other.
func oneLine(err error) error {
	text := err.Error()
	if !strings.Contains(text, "\n") {
		return err
	}
	return lined{strings.Join(strings.Fields(text), " "), err}
}

type lined struct {
	text  string
	cause error
}

func (l lined) Error() string { return l.text }
func (l lined) Unwrap() error { return l.cause }

func kindOf(code string) fault.Kind {
	switch code {
	case "57014", "25P03", "25P02": // cancelled by a time-out of the server
		return fault.Timeout
	case "25006", "55P03", "40001", "40P01", "55000", "55006": // a standby, a lock, a deadlock
		return fault.Unavailable
	case "42501":
		return fault.Denied
	case "42P01", "3D000", "3F000", "42704", "42883":
		return fault.NotFound
	}
	if len(code) < 2 {
		return fault.Internal
	}
	switch code[:2] {
	case "08", "57", "58", "40":
		return fault.Unavailable
	case "53":
		return fault.Exhausted
	case "28":
		return fault.Denied
	case "23":
		return fault.Conflict
	case "0A", "21", "22", "25", "26", "34", "42", "44", "54", "P0":
		return fault.Invalid
	}
	return fault.Internal
}

// Again tells whether a transaction failed only because of others that ran at
// the same time: a deadlock or a serialization failure.
func Again(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01")
}

// Missing tells whether a table is not there.
func Missing(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "42P01" || e.Code == "3F000")
}
