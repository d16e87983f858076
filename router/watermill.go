package router

import (
	"context"
	"log/slog"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Watermill is used as a dispatcher and nothing else. What it would do that
// loses or doubles events is kept from it:
//
//   - contexts: a round's context is our own, so closing the router cuts nothing;
//   - publishers: there are none, only consumer handlers, so none is closed;
//   - the last handler: keepAlive stays, so the router does not close itself;
//   - middlewares: none of Watermill's; the chain is composed once, in handle;
//   - names: each incarnation has its own;
//   - nacks: the outcome and its back-off travel in the round.

// keepAlive is a subscriber that never has a message.
type keepAlive struct {
	out  chan *message.Message
	once sync.Once
}

// Subscribe implements [message.Subscriber].
func (k *keepAlive) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	context.AfterFunc(ctx, k.end)
	return k.out, nil
}

// Close implements [message.Subscriber].
func (k *keepAlive) Close() error {
	k.end()
	return nil
}

func (k *keepAlive) end() { k.once.Do(func() { close(k.out) }) }

// outlet is an incarnation as a subscriber. It ends when the incarnation is
// stopped, whatever Watermill closes or cancels.
type outlet struct{ out <-chan *message.Message }

// Subscribe implements [message.Subscriber].
func (o outlet) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return o.out, nil
}

// Close implements [message.Subscriber].
func (o outlet) Close() error { return nil }

// quietLogger passes Watermill's errors on, and its comings and goings at debug
// level. What it says of each message is not passed on.
type quietLogger struct{ log *slog.Logger }

func (q quietLogger) Error(msg string, err error, fields watermill.LogFields) {
	q.log.Error(msg, append(attrs(fields), "error", err)...)
}

func (q quietLogger) Info(msg string, fields watermill.LogFields) {
	q.log.Debug(msg, attrs(fields)...)
}
func (q quietLogger) Debug(string, watermill.LogFields) {}
func (q quietLogger) Trace(string, watermill.LogFields) {}

func (q quietLogger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return quietLogger{q.log.With(attrs(fields)...)}
}

func attrs(fields watermill.LogFields) []any {
	list := make([]any, 0, 2*len(fields)+2)
	for k, v := range fields {
		list = append(list, k, v)
	}
	return list
}
