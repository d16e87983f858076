package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

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

// topic is how many partitions a topic had when it was last asked for.
type topic struct {
	partitions int
	at         time.Time
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
	_, err := c.layout(ctx, &metadata.Request{TopicNames: []string{illegalTopic}, AllowAutoTopicCreation: true})
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
		if !again(err) || errors.Is(err, errClosed) || time.Now().After(last) {
			return 0, fault.Wrap(classify(err), "look up topic %s", name)
		}
		if err := pause(ctx, try); err != nil {
			return 0, fault.Wrap(classify(err), "look up topic %s", name)
		}
	}
}

// layout asks about topics. It ends with the connections to the cluster: the library
// waits for its next look at the layout, and none comes any more.
func (c *shared) layout(ctx context.Context, r *metadata.Request) (*metadata.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	res, err := c.transport.RoundTrip(ctx, c.addr, r)
	switch {
	case c.life.Err() != nil:
		return nil, errClosed
	case err != nil:
		return nil, err
	}
	return res.(*metadata.Response), nil
}

// ask looks up a topic, first in what is known.
func (c *shared) ask(ctx context.Context, name string) (int, error) {
	res, err := c.layout(ctx, &metadata.Request{TopicNames: []string{name}, AllowAutoTopicCreation: true})
	if err != nil {
		return 0, err
	}
	for _, t := range res.Topics {
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
	res, err := c.layout(ctx, &metadata.Request{TopicNames: []string{name}})
	if err != nil {
		return 0, err
	}
	for _, t := range res.Topics {
		if t.Name == name && t.ErrorCode == 0 {
			return len(t.Partitions), nil
		}
	}
	return 0, nil
}
