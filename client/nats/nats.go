// Package nats is one connection to NATS servers, shared by every component of
// the process that uses them with the same identity: pub/sub, bindings, state.
//
// A component embeds [Options] in its own, calls [Open] with its Env, publishes
// through [Conn.Publisher] and reads streams through [Conn.Consumer]. [Classify]
// gives the library's errors their kinds.
//
// Promises: the connection is made again for ever, after pauses that double from
// 100 ms to 2 s. Nothing is buffered for a server that is away: what is published
// meanwhile fails with Unavailable. An acknowledgement that could not be sent is
// sent when the connection is back, unless its stream was made anew meanwhile.
package nats

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Options are those that all components of NATS have.
type Options struct {
	URL        string           `meta:"natsURL,required" alias:"url" doc:"The servers, separated by commas; nats, tls, ws or wss." example:"nats://localhost:4222"`
	ClientName string           `meta:"name" doc:"Name of the connection that the server shows; penstock and the app id when empty."`
	Token      component.Secret `meta:"token" doc:"Token to log in with."`
	Username   string           `meta:"username" alias:"user" doc:"User to log in as."`
	Password   component.Secret `meta:"password" doc:"Password of username."`
	JWT        component.Secret `meta:"jwt" doc:"User JWT to log in with; needs seedKey."`
	SeedKey    component.Secret `meta:"seedKey" doc:"Seed of the key that jwt is for; without jwt, of the NKey to log in with."`
	CACert     string           `meta:"caCert" doc:"Certificates to trust, as PEM or the path of a PEM file; those of the system when empty."`
	ClientCert string           `meta:"tls_client_cert" alias:"clientCert" doc:"Certificate to show, as PEM or the path of a PEM file."`
	ClientKey  component.Secret `meta:"tls_client_key" alias:"clientKey" doc:"Key of tls_client_cert, as PEM or the path of a PEM file."`
	Domain     string           `meta:"domain" doc:"JetStream domain."`
	APIPrefix  string           `meta:"apiPrefix" doc:"Prefix of the JetStream API's subjects, where an account imports it under another one."`
}

// Check implements component.Checker.
func (o Options) Check() error {
	pair := func(a, b string, hasA, hasB bool) error {
		switch {
		case hasA && !hasB:
			return component.OptionErrorf(a, "needs %s as well", b)
		case hasB && !hasA:
			return component.OptionErrorf(b, "needs %s as well", a)
		}
		return nil
	}
	var errs []error
	errs = append(errs,
		pair("jwt", "seedKey", !o.JWT.IsZero(), !o.JWT.IsZero() && !o.SeedKey.IsZero()),
		pair("tls_client_cert", "tls_client_key", o.ClientCert != "", !o.ClientKey.IsZero()))
	if err := o.secure().Check(); err != nil && errors.Join(errs...) == nil {
		errs = append(errs, component.OptionErrorf("tls_client_cert", "%w", err))
	}
	if o.Domain != "" && o.APIPrefix != "" {
		errs = append(errs, component.OptionErrorf("domain", "cannot be set together with apiPrefix"))
	}
	return errors.Join(errs...)
}

const (
	reconnectFirst = 100 * time.Millisecond
	reconnectMost  = 2 * time.Second
	dialTimeout    = 4 * time.Second
)

// Conn is one component's hold on a shared connection.
type Conn struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	acks    *acks
	release func() error
}

// Open connects, or joins the components that are connected with the same
// options already. Kinds: Invalid for options that cannot be understood, Denied
// when the server refuses the identity, Unavailable when no server answers.
func Open(ctx context.Context, env component.Env, o Options) (*Conn, error) {
	if env.Shared == nil {
		env.Shared = &component.Shared{}
	}
	nc, release, err := component.Share(env.Shared, o.key(), func() (*nats.Conn, func() error, error) {
		nc, err := connect(ctx, env, o)
		if err != nil {
			return nil, nil, err
		}
		return nc, func() error { nc.Close(); return nil }, nil
	})
	if err != nil {
		return nil, fault.Wrap(Classify(err), "connect to NATS")
	}
	js, err := jetStream(nc, o)
	if err != nil {
		_ = release() // the first error says more
		return nil, fault.Wrap(fault.As(fault.Invalid, err), "connect to JetStream")
	}
	return &Conn{nc: nc, js: js, acks: &acks{nc: nc}, release: release}, nil
}

// key tells connections apart: server and identity.
func (o Options) key() string {
	return strings.Join([]string{
		"nats", o.URL, o.ClientName, o.Token.Reveal(), o.Username, o.Password.Reveal(), o.JWT.Reveal(),
		o.SeedKey.Reveal(), o.CACert, o.ClientCert, o.ClientKey.Reveal(),
	}, "\x00")
}

func jetStream(nc *nats.Conn, o Options) (jetstream.JetStream, error) {
	switch {
	case o.Domain != "":
		return jetstream.NewWithDomain(nc, o.Domain)
	case o.APIPrefix != "":
		return jetstream.NewWithAPIPrefix(nc, o.APIPrefix)
	}
	return jetstream.New(nc)
}

// connect makes the connection. The library does not look at ctx, so one that
// comes too late is closed.
func connect(ctx context.Context, env component.Env, o Options) (*nats.Conn, error) {
	opts, err := o.dial(env)
	if err != nil {
		return nil, err
	}
	type answer struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan answer, 1)
	go func() {
		nc, err := nats.Connect(o.URL, opts...)
		select {
		case <-ctx.Done():
			if nc != nil {
				nc.Close()
			}
			err = ctx.Err()
		default:
		}
		done <- answer{nc, err}
	}()
	select {
	case a := <-done:
		return a.nc, a.err
	case <-ctx.Done():
		a := <-done // at most the time of one dial
		if a.nc != nil {
			a.nc.Close()
		}
		return nil, ctx.Err()
	}
}

func (o Options) dial(env component.Env) ([]nats.Option, error) {
	name := o.ClientName
	if name == "" {
		name = "penstock " + env.AppID
	}
	opts := []nats.Option{
		nats.Name(name), nats.Timeout(dialTimeout), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
		nats.CustomReconnectDelay(pause), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.IgnoreAuthErrorAbort(),
	}
	if env.Logger != nil {
		log := env.Logger
		opts = append(opts,
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					log.Warn("connection to NATS lost", "error", err)
				}
			}),
			nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected to NATS again") }),
			nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
				subject := ""
				if sub != nil {
					subject = sub.Subject
				}
				log.Warn("NATS reports an error", "subject", subject, "error", err)
			}))
	}
	identity, err := o.identity()
	if err != nil {
		return nil, err
	}
	opts = append(opts, identity...)
	if o.secure().IsZero() {
		return opts, nil
	}
	secure, err := o.secure().Config()
	if err != nil {
		return nil, err
	}
	return append(opts, nats.Secure(secure)), nil
}

// pause is the wait before a try to connect again.
func pause(attempts int) time.Duration {
	return min(reconnectFirst<<min(max(attempts-1, 0), 10), reconnectMost)
}

func (o Options) identity() ([]nats.Option, error) {
	var opts []nats.Option
	switch {
	case !o.SeedKey.IsZero():
		byKey, err := o.byKey()
		if err != nil {
			return nil, component.OptionErrorf("seedKey", "is not a seed: %w", fault.As(fault.Invalid, err))
		}
		opts = append(opts, byKey)
	case !o.Token.IsZero():
		opts = append(opts, nats.Token(o.Token.Reveal()))
	}
	if o.Username != "" {
		opts = append(opts, nats.UserInfo(o.Username, o.Password.Reveal()))
	}
	return opts, nil
}

// byKey answers the server's challenge with the key: of a user that the server
// knows, or of one that the JWT tells of.
func (o Options) byKey() (nats.Option, error) {
	pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(o.SeedKey.Reveal())))
	if err != nil {
		return nil, err
	}
	if o.JWT.IsZero() {
		public, err := pair.PublicKey()
		return nats.Nkey(public, pair.Sign), err
	}
	return nats.UserJWT(func() (string, error) { return strings.TrimSpace(o.JWT.Reveal()), nil }, pair.Sign), nil
}

// secure is what the options say about TLS; a URL of scheme tls asks for it by
// itself.
func (o Options) secure() clienttls.Options {
	return clienttls.Options{
		CA:   clienttls.Text{Option: "caCert", Value: o.CACert},
		Cert: clienttls.Text{Option: "tls_client_cert", Value: o.ClientCert},
		Key:  clienttls.Text{Option: "tls_client_key", Value: o.ClientKey.Reveal()},
	}
}

// Raw returns the connection for what this package does not offer. It must not
// be closed.
func (c *Conn) Raw() *nats.Conn { return c.nc }

// JetStream returns the stream interface of the connection.
func (c *Conn) JetStream() jetstream.JetStream { return c.js }

// Refused returns the server's refusal of a subject, or nil. A server says that
// beside what was asked; before is the LastError of the connection of a time
// before. What was written must have been flushed.
func Refused(nc *nats.Conn, before error, subject string) error {
	err := nc.LastError()
	if err == nil || err == before || !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), strconv.Quote(subject)) {
		return nil
	}
	return err
}

// Close lets go of the connection; the last holder's Close closes it. Calling it
// twice is allowed.
func (c *Conn) Close() error {
	c.acks.close()
	return c.release()
}

// Classify gives an error of the library its kind. Errors that have one already
// keep it.
func Classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.As(kind(err), err)
}

func kind(err error) fault.Kind {
	is := func(list ...error) bool {
		for _, e := range list {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrPermissionViolation):
		return fault.Denied
	case is(nats.ErrMaxPayload, nats.ErrBadSubject, jetstream.ErrInvalidSubject, jetstream.ErrInvalidStreamName, jetstream.ErrInvalidConsumerName,
		jetstream.ErrStreamMessageExceedsMaximum, jetstream.ErrNotPullConsumer, jetstream.ErrJetStreamNotEnabledForAccount):
		return fault.Invalid
	case is(jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound, jetstream.ErrConsumerDeleted, jetstream.ErrMsgNotFound):
		return fault.NotFound
	case is(context.DeadlineExceeded, nats.ErrTimeout, jetstream.ErrAsyncPublishTimeout):
		return fault.Timeout
	case is(jetstream.ErrMaximumConsumersLimit, jetstream.ErrTooManyStalledMsgs):
		return fault.Exhausted
	case is(nats.ErrNoServers, nats.ErrConnectionClosed, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, nats.ErrDisconnected,
		nats.ErrNoResponders, nats.ErrStaleConnection, jetstream.ErrNoStreamResponse, jetstream.ErrNoHeartbeat,
		jetstream.ErrJetStreamNotEnabled, jetstream.ErrConsumerLeadershipChanged, jetstream.ErrServerShutdown, jetstream.ErrConnectionClosed):
		return fault.Unavailable
	}
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch {
		case e.Code == 503:
			return fault.Unavailable
		case strings.Contains(e.Description, "maximum") || strings.Contains(e.Description, "resource"):
			return fault.Exhausted
		}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return fault.Denied // how TLS says that the server refuses the certificate
	}
	if k := fault.KindOf(err); k != fault.Internal {
		return k
	}
	if strings.Contains(err.Error(), "tls:") || strings.Contains(err.Error(), "x509") {
		return fault.Denied
	}
	return fault.Internal
}
