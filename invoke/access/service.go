package access

import (
	"strings"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
)

// callbacks is how the names of the services begin that an app has for its own
// sidecar alone: events, jobs and the probe of its health.
const callbacks = "dapr.proto.runtime.v1.AppCallback"

// CheckService is Check for a call of one of the app's own gRPC services by its
// full name, /package.Service/Method. One whose name reads in two ways is an error
// of kind invalid. The services of callbacks are for nobody: whoever could call
// them would hand the app events that no broker has seen.
func (g *Guard) CheckService(caller identity.ID, own bool, method string) error {
	path, err := message.Path(method)
	if err != nil {
		return err
	}
	if method != "/"+path || message.Plain(path) != path {
		return fault.New(fault.Invalid, "read method %.200q: want /package.Service/Method", method)
	}
	if strings.HasPrefix(path, callbacks) {
		return fault.New(fault.Denied, "call %.200s: it is for the app's own sidecar", method)
	}
	return g.Check(Call{Caller: caller, Own: own, Path: path})
}
