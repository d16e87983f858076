package redis

import (
	"context"
	"errors"

	"github.com/redis/rueidis"
)

// Listener is told what is published on channels.
type Listener struct {
	// Channels are listened to, each once; with Patterns they are patterns.
	Channels []string
	Patterns bool
	// Up is called when all of them are listened to.
	Up func()
	// Published gets the channel of each message. It must not block for long.
	Published func(channel string)
}

// Listen hears of what is published, on a connection of its own, until ctx ends,
// which is no error, or until the connection breaks.
func (c *Client) Listen(ctx context.Context, l Listener) error {
	conn, release := c.Dedicate()
	defer release()
	defer conn.Close() // which ends the subscriptions
	cmd := conn.B().Subscribe().Channel(l.Channels...).Build()
	if l.Patterns {
		cmd = conn.B().Psubscribe().Pattern(l.Channels...).Build()
	}
	missing := len(l.Channels)
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind != "subscribe" && s.Kind != "psubscribe" {
			return
		}
		if missing--; missing == 0 {
			l.Up()
		}
	})
	err := conn.Receive(hooked, cmd, func(m rueidis.PubSubMessage) { l.Published(m.Channel) })
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("the subscription was ended")
	}
	return Classify(err)
}

// Texts returns the values of keys in one round trip; keys that hold none, or
// something else than a text, are left out.
func (c *Client) Texts(ctx context.Context, keys []string) (map[string]string, error) {
	values, err := rueidis.MGet(c.Client, ctx, keys)
	if err != nil {
		return nil, Classify(err)
	}
	out := make(map[string]string, len(values))
	for key, m := range values {
		if text, err := m.ToString(); err == nil {
			out[key] = text
		}
	}
	return out, nil
}
