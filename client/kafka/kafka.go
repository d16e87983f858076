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
// under way when the process dies is delivered again. An outcome that comes
// after the partition went to another member changes nothing. Lost
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

const (
	// topicTime is how long it is taken for granted how many partitions a topic
	// has.
	topicTime = 5 * time.Second
	// topicPatience is how long a topic that is not there is waited for: a
	// broker that makes it takes its time.
	topicPatience = 5 * time.Second
	// illegalTopic is a name that no topic can have. Asking for it, as if to make
	// it, is the one way to have the client library ask the cluster for its layout
	// now.
	illegalTopic = "!"
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
	stop      context.CancelFunc // of what the library does by itself

	mu        sync.Mutex
	topics    map[string]topic
	refreshed time.Time
	refresh   sync.Mutex
}

// topic is how many partitions a topic had when it was last asked for.
type topic struct {
	partitions int
	at         time.Time
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
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.transport = &kafka.Transport{
		Dial: c.conns.dial, DialTimeout: o.DialTimeout, MetadataTTL: o.RefreshInterval,
		ClientID: o.ClientID, TLS: tlsConfig, SASL: mechanism, Context: life,
		IdleTimeout: 5 * time.Minute,
	}
	c.client = &kafka.Client{Addr: c.addr, Transport: c.transport}
	_, err = c.transport.RoundTrip(ctx, c.addr, &metadata.Request{TopicNames: []string{}})
	if err != nil {
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

// relearn has the layout of the cluster asked for now. Calls that come together
// share one request.
func (c *shared) relearn(ctx context.Context) {
	asked := time.Now()
	c.refresh.Lock()
	defer c.refresh.Unlock()
	c.mu.Lock()
	if c.refreshed.After(asked) {
		c.mu.Unlock()
		return
	}
	clear(c.topics)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := c.transport.RoundTrip(ctx, c.addr, &metadata.Request{TopicNames: []string{illegalTopic}, AllowAutoTopicCreation: true})
	if err != nil && ctx.Err() == nil {
		// The library keeps an error until its next look, which may be far; a new
		// pool looks at once.
		c.transport.CloseIdleConnections()
	}
	c.mu.Lock()
	c.refreshed = time.Now()
	c.mu.Unlock()
}

// partitions returns how many partitions a topic has. One that is not there is
// asked for as if to write to it, which makes it where the brokers do that.
func (c *shared) partitions(ctx context.Context, name string) (int, error) {
	c.mu.Lock()
	t, ok := c.topics[name]
	c.mu.Unlock()
	if ok && time.Since(t.at) < topicTime {
		return t.partitions, nil
	}
	last := time.Now().Add(topicPatience)
	for try := 0; ; try++ {
		n, err := c.ask(ctx, name)
		if err == nil {
			c.mu.Lock()
			c.topics[name] = topic{n, time.Now()}
			c.mu.Unlock()
			return n, nil
		}
		if !again(err) || time.Now().After(last) {
			return 0, fault.Wrap(classify(err), "look up topic %s", name)
		}
		if err := pause(ctx, try); err != nil {
			return 0, fault.Wrap(classify(err), "look up topic %s", name)
		}
	}
}

// ask looks up a topic, first in what is known.
func (c *shared) ask(ctx context.Context, name string) (int, error) {
	res, err := c.transport.RoundTrip(ctx, c.addr, &metadata.Request{TopicNames: []string{name}, AllowAutoTopicCreation: true})
	if err != nil {
		return 0, err
	}
	for _, t := range res.(*metadata.Response).Topics {
		if t.Name != name {
			continue
		}
		if t.ErrorCode != 0 {
			if err := kafka.Error(t.ErrorCode); err != kafka.UnknownTopicOrPartition {
				return 0, err
			}
			return 0, missing(name)
		}
		if len(t.Partitions) > 0 {
			return len(t.Partitions), nil
		}
	}
	return 0, missing(name)
}

// known returns how many partitions a topic has by what was last heard, 0 when
// it is not there.
func (c *shared) known(ctx context.Context, name string) (int, error) {
	res, err := c.transport.RoundTrip(ctx, c.addr, &metadata.Request{TopicNames: []string{name}})
	if err != nil {
		return 0, err
	}
	for _, t := range res.(*metadata.Response).Topics {
		if t.Name == name && t.ErrorCode == 0 {
			return len(t.Partitions), nil
		}
	}
	return 0, nil
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

// connections are those that were dialled and not closed, so that all can be
// closed at once: the client library waits for answers that may never come.
type connections struct {
	dialer net.Dialer

	mu   sync.Mutex
	open map[*connection]struct{}
	over bool
}

func newConnections(timeout, keepAlive time.Duration) *connections {
	return &connections{dialer: net.Dialer{Timeout: timeout, KeepAlive: keepAlive}, open: map[*connection]struct{}{}}
}

type connection struct {
	net.Conn
	all *connections
}

var errCut = fault.New(fault.Unavailable, "the connection to kafka is closed")

func (c *connections) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	made := &connection{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		_ = conn.Close() // nothing was written
		return nil, errCut
	}
	c.open[made] = struct{}{}
	return made, nil
}

// Close closes the connection.
func (c *connection) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// cut closes all connections and lets no new ones be made.
func (c *connections) cut() {
	c.mu.Lock()
	c.over = true
	open := make([]*connection, 0, len(c.open))
	for conn := range c.open {
		open = append(open, conn)
	}
	c.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close() // whoever uses it sees that
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
