// Package etcd connects to etcd clusters: one client per cluster and identity,
// shared by all components that use it.
//
// A component embeds [Options], calls [Open], and uses what it gets as a
// clientv3.Client, with the context of [Client.Bound] for each request.
//
// It promises that an open respects its context and fails when no member
// answers, that broken connections are made anew for ever, and that every error
// has a kind once [Classify] has seen it.
package etcd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Options are those of every component that uses etcd; its own options struct
// embeds them.
type Options struct {
	Endpoints []string         `meta:"endpoints,required" doc:"Addresses of the cluster's members." example:"10.0.0.1:2379,10.0.0.2:2379"`
	Username  string           `meta:"username" doc:"User to log in as, with password; nobody when empty."`
	Password  component.Secret `meta:"password" doc:"Password of username."`
	TLS       bool             `meta:"tlsEnable" doc:"Connects with TLS."`
	CA        string           `meta:"ca" doc:"Certificates to trust, as PEM or the path of a PEM file; those of the system when empty."`
	Cert      string           `meta:"cert" doc:"Certificate to show, as PEM or the path of a PEM file."`
	Key       component.Secret `meta:"key" doc:"Key of cert, as PEM or the path of a PEM file."`
}

// Check implements component.Checker.
func (o Options) Check() error {
	if (o.Username == "") != (o.Password.Reveal() == "") {
		return component.OptionErrorf("username", "needs password beside it, and password needs username")
	}
	if !o.TLS {
		return nil
	}
	if err := o.secure().Check(); err != nil {
		return component.OptionErrorf("cert", "%w", err)
	}
	return nil
}

func (o Options) secure() clienttls.Options {
	return clienttls.Options{
		CA:   clienttls.Text{Option: "ca", Value: o.CA},
		Cert: clienttls.Text{Option: "cert", Value: o.Cert},
		Key:  clienttls.Text{Option: "key", Value: o.Key.Reveal()},
	}
}

// identity is the same for options that can share a client; it tells nothing.
func (o Options) identity() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %v %q %q %q", o.Endpoints, o.Username, o.Password.Reveal(), o.TLS, o.CA, o.Cert, o.Key.Reveal()))
	return hex.EncodeToString(sum[:8])
}

const (
	dialTimeout = 5 * time.Second
	// callTimeout bounds one request: the client waits for a member without end.
	callTimeout = 5 * time.Second
	// largest message: the server has the say, with an error of its own.
	largest = 64 << 20
)

// Client is a component's use of a connection. Close lets go of it; the last one
// to do so closes the connection.
type Client struct {
	*clientv3.Client
	release func() error
}

// Open makes or joins the client of these options and asks the cluster for probe,
// a key that the component may read. Kinds: Invalid for options that cannot be,
// Denied for who may not, Unavailable or Timeout when no member answers.
func Open(ctx context.Context, env component.Env, o Options, probe string) (*Client, error) {
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	raw, release, err := component.Share(shared, "etcd:"+o.identity(), func() (*clientv3.Client, func() error, error) {
		conf := clientv3.Config{
			Endpoints: o.Endpoints, DialTimeout: dialTimeout, MaxCallSendMsgSize: largest, MaxCallRecvMsgSize: largest,
			DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second, // a member that is gone without a word
			Username: o.Username, Password: o.Password.Reveal(),
			Context: context.WithoutCancel(ctx), Logger: zap.NewNop(),
		}
		if o.TLS {
			var err error
			if conf.TLS, err = o.secure().Config(); err != nil {
				return nil, nil, err
			}
		}
		c, err := clientv3.New(conf) // which logs in
		switch {
		case err != nil && o.Username != "":
			return nil, nil, Classify(err)
		case err != nil:
			return nil, nil, fault.As(fault.Invalid, err)
		}
		return c, c.Close, nil
	})
	if err != nil {
		return nil, fault.Wrap(err, "connect to etcd")
	}
	c := &Client{Client: raw, release: release}
	ctx, cancel := c.Bound(ctx)
	defer cancel()
	if _, err := c.Get(ctx, probe, clientv3.WithCountOnly()); err != nil {
		_ = release() // the first error says more
		return nil, fault.Wrap(Classify(err), "connect to etcd")
	}
	return c, nil
}

// Bound bounds the context of one request to 5 seconds.
func (c *Client) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// Close lets go of the connection. Calling it twice is allowed.
func (c *Client) Close() error { return c.release() }

// Commit carries out the operations when all conditions hold.
func (c *Client) Commit(ctx context.Context, conditions []clientv3.Cmp, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := c.Bound(ctx)
	defer cancel()
	res, err := c.Txn(ctx).If(conditions...).Then(ops...).Commit()
	return res, Classify(err)
}

// Lease grants a lease of at least ttl, rounded up to whole seconds. What hangs
// on it is deleted when it is over; the cluster may take a little longer.
func (c *Client) Lease(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	ctx, cancel := c.Bound(ctx)
	defer cancel()
	res, err := c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return clientv3.NoLease, Classify(err)
	}
	return res.ID, nil
}

// GiveBack revokes a lease that nothing hangs on, also when ctx has ended. One
// that cannot be given back ends by itself.
func (c *Client) GiveBack(ctx context.Context, id clientv3.LeaseID) {
	ctx, cancel := c.Bound(context.WithoutCancel(ctx))
	defer cancel()
	_, _ = c.Revoke(ctx, id)
}

// Classify gives an error of the client its kind. It returns nil when err is nil.
func Classify(err error) error {
	if err == nil {
		return nil
	}
	if strings.Contains(err.Error(), "larger than max") { // gRPC has the code of a limit of rate for it
		return fault.As(fault.Invalid, err)
	}
	if e, ok := errors.AsType[rpctypes.EtcdError](rpctypes.Error(err)); ok {
		switch e {
		case rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken: // whose codes say that the request is wrong
			return fault.As(fault.Denied, err)
		}
		return fault.As(fault.FromGRPCCode(uint32(e.Code())), err)
	}
	if st, ok := status.FromError(err); ok {
		return fault.As(fault.FromGRPCCode(uint32(st.Code())), err)
	}
	return fault.As(fault.KindOf(err), err)
}
