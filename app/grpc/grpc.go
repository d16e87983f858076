// Package grpc talks to an app that speaks gRPC: Dapr's AppCallback services,
// in clear text or over TLS.
//
// The runtime makes one [Channel] with [New] and puts an app.App in front of
// it. It implements app.Channel and app.Reacher. [TopicEvent] and
// [StatusOutcome] are the messages of a delivery for streams, which the app
// opens itself.
//
// It promises one call per delivery, over one connection, and no proxy. A call is
// only repeated when a connection that was good broke before the app answered. Data arrives byte for byte,
// answers are bounded by [Options.MaxBody], the time by the context. A status
// nobody knows is a retry, never a success. The token goes to the app and
// nowhere else.
package grpc

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
)

// Options say where the app is and how it wants to be asked.
type Options struct {
	Port     int
	Address  string // default 127.0.0.1
	Protocol string // grpc (default) or grpcs
	// Token is sent with every call as dapr-api-token; empty: none.
	Token string
	// MaxBody bounds an answer, in bytes; default 4 MiB. A bulk is sent in
	// calls of about that size. What came in is sent whatever its size.
	MaxBody int64
	// ProbeTimeout bounds the question which bindings the app takes; default
	// 3 s.
	ProbeTimeout time.Duration
	// DiscoveryTimeout bounds one try of asking for subscriptions; default
	// 30 s.
	DiscoveryTimeout time.Duration
	// Disable lists questions not to ask: "subscribe".
	Disable []string
	// Metrics counts calls and questions for health; nil: nobody does.
	Metrics *telemetry.Metrics
	Logger  *slog.Logger
}

// Channel is an app over gRPC. It is safe for concurrent use.
type Channel struct {
	o       Options
	log     *slog.Logger
	address string // host:port
	conn    *grpc.ClientConn
	token   []string
	// good is our end of the connection that carried the last answer.
	good atomic.Pointer[net.TCPAddr]
	// useAlpha tells that the app has only the older method for a bulk.
	useAlpha atomic.Bool
	// mute tells that it has been said that the app speaks no gRPC.
	mute atomic.Bool

	mu       sync.Mutex
	bindings map[string]bool // what the app takes; nil until it is known
}

var (
	_ app.Channel = (*Channel)(nil)
	_ app.Reacher = (*Channel)(nil)
)

// New makes the channel; it opens no connection. Wrong options are errors of
// kind invalid.
//
// The certificate of a grpcs app is checked, unless its address is a loopback
// one: there it is usually self-signed and the connection cannot be tapped.
func New(o Options) (*Channel, error) {
	o = withDefaults(o)
	if err := check(o); err != nil {
		return nil, err
	}
	c := &Channel{o: o, log: o.Logger, address: net.JoinHostPort(o.Address, strconv.Itoa(o.Port))}
	if o.Token != "" {
		c.token = []string{o.Token}
	}
	// The address as it is: the dialer resolves it anew for every connection.
	conn, err := grpc.NewClient("passthrough:///"+c.address, dialOptions(o)...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "connect to the app at %s: %w", c.address, err)
	}
	c.conn = conn
	return c, nil
}

func withDefaults(o Options) Options {
	o.Address = strings.TrimSuffix(strings.TrimPrefix(o.Address, "["), "]")
	o.Address = cmp.Or(o.Address, "127.0.0.1")
	o.Protocol = cmp.Or(o.Protocol, "grpc")
	o.ProbeTimeout = cmp.Or(o.ProbeTimeout, 3*time.Second)
	o.DiscoveryTimeout = cmp.Or(o.DiscoveryTimeout, 30*time.Second)
	o.MaxBody = cmp.Or(o.MaxBody, 4<<20)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func check(o Options) error {
	switch {
	case o.Protocol != "grpc" && o.Protocol != "grpcs":
		return fault.New(fault.Invalid, "app protocol %q: want grpc or grpcs", o.Protocol)
	case o.MaxBody < 0 || o.ProbeTimeout < 0 || o.DiscoveryTimeout < 0:
		return fault.New(fault.Invalid, "app limits: none may be negative")
	}
	return app.CheckPlace(o.Port, o.Address, o.Token)
}

// minConnect is what a connection gets to open, as app/http gives it.
const minConnect = 5 * time.Second

func dialOptions(o Options) []grpc.DialOption {
	secure := insecure.NewCredentials()
	if o.Protocol == "grpcs" {
		secure = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: app.IsLoopback(o.Address)})
	}
	dialer := &net.Dialer{Timeout: minConnect, KeepAlive: 15 * time.Second}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("penstock"),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: minConnect,
		}),
		// Servers hang up on clients that ping more than every five minutes
		// while a call is under way; what dies sooner, the system's keep-alive
		// finds.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 15 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(int(o.MaxBody))),
	}
}

// Close closes the connection; calls under way fail.
func (c *Channel) Close() {
	// It fails only when it is closed already.
	_ = c.conn.Close()
}

// Reach returns nil when a gRPC server answers at the app's port. It opens the
// connection, or tries again to, and gives that a moment: deliveries must not
// fail because of a pause that began when the app was down. What listens and
// does not answer is an error, lest deliveries begin only to fail.
func (c *Channel) Reach(ctx context.Context) error {
	var d net.Dialer
	probe, err := d.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return app.Unreachable(err)
	}
	if err := probe.Close(); err != nil {
		return app.Unreachable(err)
	}
	return c.connect(ctx)
}

// handshake is how long a connection to an app that listens may take before
// that is said.
const handshake = 300 * time.Millisecond

// errMute is about what listens and speaks something else, or is slow.
var errMute = fault.New(fault.Unavailable, "it listens but does not answer as a gRPC server")

// connect waits until the connection is there, but not long.
func (c *Channel) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	c.conn.ResetConnectBackoff()
	c.conn.Connect()
	for s := c.conn.GetState(); s != connectivity.Ready; s = c.conn.GetState() {
		if s == connectivity.Idle {
			c.conn.Connect()
		}
		if !c.conn.WaitForStateChange(ctx, s) {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && !c.mute.Swap(true) {
				c.log.Warn("App listens but does not answer as a gRPC server; is --app-protocol right?", "address", c.address, "protocol", c.o.Protocol)
			}
			return app.Unreachable(errMute)
		}
	}
	c.mute.Store(false)
	return nil
}

// Health asks the app for its health. An app without the health service is not
// well.
func (c *Channel) Health(ctx context.Context) error {
	err := c.ask(ctx, healthMethod(), &rtv1.HealthCheckResponse{})
	if isUnimplemented(err) {
		return fault.Wrap(err, "the app has no AppCallbackHealthCheck: serve it, or run without --enable-app-health-check")
	}
	return err
}
