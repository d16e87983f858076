package runtime

import (
	"context"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/config"
	calling "github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/access"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	sidecars "github.com/penstock-io/penstock/invoke/peer"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/telemetry"
)

// calls are the way from app to app.
type calls struct {
	identity identity.Source // nil: no mutual TLS
	peers    *sidecars.Client
	access   *access.Guard
	invoker  *calling.Invoker
}

var (
	_ api.Caller    = (*Runtime)(nil)
	_ api.Forwarder = (*Runtime)(nil)
)

// connectCalls makes the way to other apps. Nothing is opened.
func (r *Runtime) connectCalls() {
	r.calls.access = access.NewGuard(telemetry.Part(r.log, "invoke"))
	r.calls.peers = sidecars.NewClient(sidecars.ClientOptions{Identity: r.calls.identity, MaxBody: r.o.MaxBody, Logger: telemetry.Part(r.log, "invoke")})
	o := calling.Options{
		AppID: r.o.AppID, Namespace: r.o.Namespace, Finder: r.names.directory, Peers: r.calls.peers, Policies: r.parts.policies,
		Endpoints: r.endpoints, Access: r.calls.access, Address: r.ownHost(), Tracer: r.tracer, Metrics: r.metrics,
	}
	if r.app != nil {
		o.App = r.app
	}
	// Without a name the headers of forwarded requests do without it.
	o.Host, _ = os.Hostname()
	r.calls.invoker = calling.New(o)
}

// ownHost is the address that others reach this process by: the one its internal
// server listens on, unless that is any or DAPR_HOST_IP says another.
func (r *Runtime) ownHost() string {
	_, told := r.o.Env("DAPR_HOST_IP")
	if len(r.o.Internal) > 0 && !told {
		if a, ok := r.o.Internal[0].Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
			return a.IP.String()
		}
	}
	return hostAddress(r.o.Env)
}

// Invoke implements [api.Caller].
func (r *Runtime) Invoke(ctx context.Context, target string, m *message.Request) (*message.Response, error) {
	return r.calls.invoker.Do(ctx, target, m)
}

// Forward implements [api.Forwarder].
func (r *Runtime) Forward(ctx context.Context, target string, c *proxy.Call) error {
	return r.calls.invoker.Forward(ctx, target, c)
}

// limitCalls makes calls of the app follow the Configuration.
func (r *Runtime) limitCalls(c config.AccessControl) {
	own := identity.ID{TrustDomain: c.TrustDomain, Namespace: r.namespace(), App: r.o.AppID}
	r.calls.access.Set(access.New(c, own, !strings.HasPrefix(r.o.App.Protocol, "grpc")))
	if r.calls.identity == nil && len(c.Policies) > 0 && len(r.o.Internal) > 0 && r.app != nil {
		r.log.Warn("Access control names apps, but without mutual TLS callers cannot prove who they are: spec.accessControl.defaultAction decides on their calls", "default", c.Action)
	}
}

// servePeers takes calls of other sidecars until ctx ends.
func (r *Runtime) servePeers(ctx context.Context, cut <-chan struct{}) error {
	o := sidecars.ServerOptions{
		AppID: r.o.AppID, Namespace: r.o.Namespace, Access: r.calls.access, Identity: r.calls.identity, MaxBody: r.o.MaxBody, Drain: r.o.Grace, Cut: cut, Tracer: r.tracer, Metrics: r.metrics, Logger: telemetry.Part(r.log, "invoke"),
	}
	if r.app != nil {
		o.App = r.app
	}
	if r.app != nil && !strings.HasPrefix(r.o.App.Protocol, "grpc") {
		o.Direct = func(ctx context.Context, h http.Handler, l net.Listener) error {
			return apihttp.NewServer(h, apihttp.ServerOptions{
				ReadBuffer: sidecars.MaxHead, Context: sidecars.DirectContext, Drain: r.o.Grace, Cut: cut, Logger: telemetry.Part(r.log, "invoke"),
			}).Run(ctx, l)
		}
	}
	return sidecars.NewServer(o).Run(ctx, r.o.Internal...)
}

// closeCalls frees the connections to others.
func (r *Runtime) closeCalls() {
	for _, e := range r.endpoints.swap(nil, nil) {
		e.server.Close()
	}
	r.calls.peers.Close()
	r.calls.invoker.Close()
}
