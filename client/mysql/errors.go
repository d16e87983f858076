package mysql

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"io"
	"net"

	driver "github.com/go-sql-driver/mysql"

	"github.com/penstock-io/penstock/fault"
)

// Classify gives an error of the driver its kind, by the number and the SQLSTATE
// where the server has sent them. It returns nil when err is nil, and errors that
// have a kind as they are.
func Classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*driver.MySQLError](err); ok {
		return fault.As(kindOf(e.Number, string(e.SQLState[:])), err)
	}
	if _, ok := errors.AsType[net.Error](err); ok && !errors.Is(err, context.DeadlineExceeded) {
		return fault.As(fault.Unavailable, err)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.As(fault.KindOf(err), err)
	case errors.Is(err, sql.ErrNoRows):
		return fault.As(fault.NotFound, err)
	case errors.Is(err, sqldriver.ErrBadConn), errors.Is(err, driver.ErrInvalidConn), errors.Is(err, sql.ErrConnDone),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), err.Error() == "sql: database is closed":
		return fault.As(fault.Unavailable, err)
	}
	return fault.As(fault.Invalid, err) // the driver refused it before it was sent
}

// kindOf reads what a server says. MariaDB has numbers of its own from 1900 on.
func kindOf(number uint16, state string) fault.Kind {
	switch number {
	case 1044, 1045, 1130, 1142, 1143, 1227, 1370, 1698, 1820:
		return fault.Denied
	case 1049, 1051, 1146, 1305:
		return fault.NotFound
	case 1021, 1037, 1038, 1040, 1041, 1114, 1203, 1226:
		return fault.Exhausted
	case 1317, 1969, 3024: // interrupted by a limit
		return fault.Timeout
	case 1053, 1077, 1078, 1079, 1205, 1213, 1290, 1792, 1836, 1927, 3100, 3101, 3169: // a shutdown, a lock, a deadlock, read only
		return fault.Unavailable
	case 1364, 1366, 1265, 3819, 4025: // the last two: a CHECK, such as that of JSON
		return fault.Invalid
	}
	switch state[:min(2, len(state))] {
	case "08", "40":
		return fault.Unavailable
	case "28":
		return fault.Denied
	case "23":
		return fault.Conflict
	case "21", "22", "42", "0A", "3D", "44", "45":
		return fault.Invalid
	}
	return fault.Internal
}
