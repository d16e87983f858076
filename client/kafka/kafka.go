// Package kafka is one Kafka cluster, shared by every component of the process
// that uses it: pub/sub and bindings.
//
// A component embeds [Options] in its own, calls [Open], and then writes with
// [Cluster.Producer] and reads with [Cluster.Consumer]. One cluster and identity
// is one pool of connections in the process, whatever number of components
// opened it.
//
// Promises: a record counts as written when the replicas that acks asks for
// have it, and then only. A record counts as read when its outcome is ack or
// drop, and the offset that is committed never passes one that is not: what is
// under way when the process dies is delivered again. What is done behind such
// an offset is noted with it, as far as 4 KB go, and left out by whoever has the
// partition next. A partition that goes to another member of the group is
// finished first, for as long as rebalanceDrain; an outcome that comes later
// changes nothing. Lost
// connections, moved leaders and moved coordinators are dealt with for ever,
// with a pause of at most a second between two tries; a produce request alone
// gives up after producerRetryMax tries. There is no idempotent producer: a
// request whose answer was lost and that is sent again can double its records.
package kafka

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Cluster is one component's hold on a cluster.
type Cluster struct {
	*shared
	options Options
	log     *slog.Logger
	release func() error
}

// shared is what the holders share.
type shared struct {
	addr      net.Addr
	seeds     []string
	transport *kafka.Transport
	client    *kafka.Client
	conns     *connections
	life      context.Context    // of what the library does by itself
	stop      context.CancelFunc // ends it

	mu        sync.Mutex
	topics    map[string]topic
	refreshed time.Time
	refresh   sync.Mutex
}

// Open connects to the cluster and asks for its layout. Kinds: Denied for
// wrong credentials or certificates, Unavailable or Timeout when no broker
// answers, Invalid for certificates that cannot be read.
func Open(ctx context.Context, env component.Env, o Options) (*Cluster, error) {
	s := env.Shared
	if s == nil {
		s = &component.Shared{}
	}
	made, release, err := component.Share(s, "kafka:"+o.identity(), func() (*shared, func() error, error) {
		c, err := connect(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		return c, c.close, nil
	})
	if err != nil {
		return nil, fault.Wrap(err, "connect to kafka")
	}
	log := env.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Cluster{shared: made, options: o, log: log, release: release}, nil
}

// identity tells clusters and identities apart without showing a secret.
func (o *Options) identity() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q %q %q %q %q %q %q %q %t %t %s %s %s",
		o.Brokers, o.ClientID, o.AuthType, o.AuthRequired, o.SASLUsername, o.SASLPassword.Reveal(), o.SASLMechanism,
		o.CACert, o.ClientCert, o.ClientKey.Reveal(), o.OIDCTokenEndpoint, o.OIDCClientID, o.OIDCClientSecret.Reveal(),
		o.OIDCScopes+o.OIDCExtensions, o.DisableTLS, o.SkipVerify, o.RefreshInterval, o.DialTimeout, o.KeepAlive))
	return hex.EncodeToString(sum[:])
}

func connect(ctx context.Context, o Options) (*shared, error) {
	tlsConfig, err := o.tls()
	if err != nil {
		return nil, err
	}
	mechanism, err := o.mechanism(tlsConfig)
	if err != nil {
		return nil, err
	}
	c := &shared{
		addr: kafka.TCP(o.Brokers...), seeds: o.Brokers, topics: map[string]topic{},
		conns: newConnections(o.DialTimeout, o.KeepAlive),
	}
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.transport = &kafka.Transport{
		Dial: c.conns.dial, DialTimeout: o.DialTimeout, MetadataTTL: o.RefreshInterval,
		ClientID: o.ClientID, TLS: tlsConfig, SASL: mechanism, Context: c.life,
		IdleTimeout: 5 * time.Minute,
	}
	c.client = &kafka.Client{Addr: c.addr, Transport: c.transport}
	if _, err = c.layout(ctx, &metadata.Request{TopicNames: []string{}}); err != nil {
		_ = c.close() // there is nothing in it
		return nil, classify(err)
	}
	return c, nil
}

// dialer makes the connections of a group's member, which has its own: they
// are closed when the member is cut off.
func (c *shared) dialer(conns *connections) *kafka.Dialer {
	return &kafka.Dialer{
		ClientID: c.transport.ClientID, Timeout: c.transport.DialTimeout, DialFunc: conns.dial,
		TLS: c.transport.TLS, SASLMechanism: c.transport.SASL,
	}
}

// Close lets go of the cluster; the last holder closes its connections.
func (c *Cluster) Close() error { return c.release() }

func (c *shared) close() error {
	c.stop()
	c.transport.CloseIdleConnections()
	c.conns.cut()
	return nil
}

// pause waits before the next try: 50 ms, doubling to a second.
func pause(ctx context.Context, try int) error {
	t := time.NewTimer(min(50*time.Millisecond<<min(try, 5), time.Second))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// classify gives an error of the client library a kind.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.As(kindOf(err), err)
}
