package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/eclipse/paho.golang/paho"
	pahosession "github.com/eclipse/paho.golang/paho/session"

	"github.com/penstock-io/penstock/fault"
)

// reasonError is what a server of version 5 says is wrong.
type reasonError struct {
	code byte
	text string
}

func (e *reasonError) Error() string {
	name, _ := reason(e.code)
	if e.text != "" {
		return name + ": " + e.text
	}
	return name
}

// reason names a reason code and its kind.
func reason(code byte) (string, fault.Kind) {
	switch code {
	case 0x84:
		return "protocol version not supported", fault.Invalid
	case 0x85:
		return "client identifier not valid", fault.Invalid
	case 0x86:
		return "bad user name or password", fault.Denied
	case 0x87:
		return "not authorized", fault.Denied
	case 0x8a:
		return "banned", fault.Denied
	case 0x8e:
		return "another client has taken over the session", fault.Unavailable
	case 0x8f, 0x90:
		return "topic not valid", fault.Invalid
	case 0x95:
		return "packet too large", fault.Invalid
	case 0x97:
		return "quota exceeded", fault.Exhausted
	case 0x99:
		return "payload format not valid", fault.Invalid
	case 0x9a, 0x9b, 0x9e, 0xa2:
		return fmt.Sprintf("not supported by the server (reason %#x)", code), fault.Invalid
	}
	return fmt.Sprintf("reason %#x", code), fault.Unavailable
}

// classify gives an error of the libraries its kind.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.As(kind(err), err)
}

func kind(err error) fault.Kind {
	if r, ok := errors.AsType[*reasonError](err); ok {
		_, k := reason(r.code)
		return k
	}
	is := func(list ...error) bool {
		for _, e := range list {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(packets.ErrorRefusedBadUsernameOrPassword, packets.ErrorRefusedNotAuthorised):
		return fault.Denied
	case is(packets.ErrorRefusedBadProtocolVersion, packets.ErrorRefusedIDRejected, paho.ErrInvalidArguments):
		return fault.Invalid
	case is(context.DeadlineExceeded):
		return fault.Timeout
	case is(packets.ErrorRefusedServerUnavailable, v3.ErrNotConnected, pahosession.ErrNoConnection, paho.ErrConnectionLost,
		paho.ErrNetworkErrorAfterStored):
		return fault.Unavailable
	}
	if text := err.Error(); strings.Contains(text, "x509") || strings.Contains(text, "tls: ") {
		return fault.Denied
	}
	if k := fault.KindOf(err); k != fault.Internal {
		return k
	}
	return fault.Unavailable
}
