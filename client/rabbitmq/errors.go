package rabbitmq

import (
	"crypto/tls"
	"errors"
	"net"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/fault"
)

// Classify gives an error of the client library its kind.
func Classify(err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	switch {
	case ok:
		return fault.As(kindOf(e), err)
	case refusedTLS(err):
		return fault.As(fault.Denied, err)
	}
	return err
}

// refusedTLS tells whether one side does not accept the other's certificate.
func refusedTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" // an alert of the other side
}

func kindOf(e *amqp.Error) fault.Kind {
	switch e.Code {
	case amqp.AccessRefused, amqp.NotAllowed:
		return fault.Denied
	case amqp.NotFound:
		return fault.NotFound
	case amqp.PreconditionFailed, amqp.ResourceLocked:
		return fault.Conflict
	case amqp.ContentTooLarge, amqp.SyntaxError:
		return fault.Invalid
	case amqp.ResourceError:
		return fault.Exhausted
	}
	return fault.Unavailable // the connection or the channel is gone
}
