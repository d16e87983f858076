package rabbitmq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// publishers is how many channels publish.
const publishers = 4

// Client is the connections to one server by one identity. All methods may be
// used by many goroutines.
type Client struct {
	publish, consume *link
	writers          [publishers]*batch.Writer[*Message]
	next             atomic.Uint32
}

// Open connects, or joins those who are connected with the same Config. The
// error of a server that cannot be reached is of kind Unavailable or Timeout,
// that of a user it does not know of kind Denied. release must be called once.
func Open(ctx context.Context, env component.Env, c Config) (client *Client, release func() error, err error) {
	if env.Shared == nil {
		env.Shared = &component.Shared{}
	}
	name := c.ClientName
	if name == "" {
		name = "penstock " + env.AppID
	}
	return component.Share(env.Shared, c.key(name), func() (*Client, func() error, error) {
		client := newClient(ctx, name, c)
		if err := client.publish.open(ctx); err != nil {
			return nil, nil, err
		}
		return client, client.close, nil
	})
}

// key is the same for everybody who can share a connection. It shows nothing.
func (c Config) key(name string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []any{
		c.URL, c.CACert, c.ClientCert, c.ClientKey.Reveal(), c.External, c.HeartBeat, c.ReconnectWait, name,
	}))
	return "rabbitmq:" + hex.EncodeToString(sum[:16])
}

func newClient(ctx context.Context, name string, c Config) *Client {
	client := &Client{publish: newLink(ctx, "publish", name, c), consume: newLink(ctx, "consume", name, c)}
	for i := range client.writers {
		p := &publisher{link: client.publish}
		client.writers[i] = batch.NewWriter(ctx, batch.Options[*Message]{Write: p.write, Most: window})
	}
	return client
}

// close ends both connections. What is being published is cut: whoever closes
// waits for publishes first.
func (c *Client) close() error {
	c.publish.cancel()
	for _, w := range c.writers {
		_ = w.Close(c.publish.ctx) // it is empty, or cut
	}
	c.publish.close()
	c.consume.close()
	return nil
}

// Declare runs fn on a channel of its own, which fails alone when the server
// refuses something. Exclusive queues belong to the consuming connection.
func (c *Client) Declare(ctx context.Context, consuming bool, fn func(*amqp.Channel) error) error {
	l := c.publish
	if consuming {
		l = c.consume
	}
	s, err := l.session(ctx, publishPatience)
	if err != nil {
		return err
	}
	return s.declare(fn)
}

// declare runs fn on a channel of its own.
func (s *session) declare(fn func(*amqp.Channel) error) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return fault.Wrap(Classify(err), "open channel")
	}
	if err := fn(ch); err != nil {
		_ = ch.Close() // the server may have closed it
		return Classify(err)
	}
	return Classify(ch.Close())
}
