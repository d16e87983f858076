package rabbitmq

import (
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/fault"
)

// Classify gives an error of the client library its kind.
func Classify(err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return err
	}
	return fault.As(kindOf(e), err)
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
