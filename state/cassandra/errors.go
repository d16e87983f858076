package cassandra

import (
	"context"
	"errors"
	"strings"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/penstock-io/penstock/fault"
)

// classify gives an error of the library its kind.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.As(kindOf(err), err)
}

func kindOf(err error) fault.Kind {
	switch {
	case errors.Is(err, gocql.ErrTimeoutNoResponse), errors.Is(err, context.DeadlineExceeded):
		return fault.Timeout
	case errors.Is(err, gocql.ErrFrameTooBig):
		return fault.Invalid
	}
	answer, answered := errors.AsType[gocql.RequestError](err)
	if !answered { // no connection, or one that broke
		return fault.Unavailable
	}
	switch answer.Code() {
	case gocql.ErrCodeCredentials, gocql.ErrCodeUnauthorized:
		return fault.Denied
	case gocql.ErrCodeOverloaded:
		return fault.Exhausted
	case gocql.ErrCodeWriteTimeout, gocql.ErrCodeReadTimeout:
		return fault.Timeout
	case gocql.ErrCodeSyntax, gocql.ErrCodeInvalid, gocql.ErrCodeConfig, gocql.ErrCodeProtocol:
		return fault.Invalid
	}
	if strings.Contains(answer.Message(), "too large") { // it has no code of its own
		return fault.Invalid
	}
	return fault.Unavailable
}
