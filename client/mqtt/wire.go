package mqtt

import (
	"context"
	"time"
)

// Message is one to publish.
type Message struct {
	Topic  string
	Body   []byte
	QoS    byte
	Retain bool
	// The rest is for version 5 only.
	ContentType string
	Properties  map[string]string // the user's
	Key         string
	Expires     time.Time // zero is never
}

// Received is one message as it came.
type Received struct {
	Topic    string
	Body     []byte
	QoS      byte
	Retained bool
	// The rest comes with version 5 only.
	ContentType string
	Properties  map[string]string // nil when there are none
	Key         string

	id  uint16
	dup bool
	ack func() // may block on the network; nil for QoS 0
}

// Number is what the server calls the message until it is acknowledged; then it
// calls another so. 0 with QoS 0.
func (r *Received) Number() int { return int(r.id) }

// wire is one connection in either version of the protocol.
type wire interface {
	// send hands a message over. It returns what waits for the server's answer.
	send(ctx context.Context, m *Message) (wait func(context.Context) error, err error)
	subscribe(ctx context.Context, filter string, qos byte) error
	unsubscribe(ctx context.Context, filter string) error
	// close disconnects in order. It may be called twice, and after a loss.
	close()
}

// dialing says how to connect.
type dialing struct {
	id        string
	clean     bool
	keepAlive time.Duration
	// silence is how long the answer to a ping may take; version 3 only, where
	// what is received holds back the answer.
	silence time.Duration
	will    *Message
	// receive gets what comes, one after the other; nil: nothing is expected. It
	// may block.
	receive func(*Received)
	// lost is called once when the connection ends by itself, maybe before dial
	// returns.
	lost func(error)
}

// dial connects. present tells that the server had the session.
func (c Config) dial(ctx context.Context, d dialing) (w wire, present bool, err error) {
	if d.keepAlive == 0 {
		d.keepAlive = 10 * time.Second
	}
	if d.silence == 0 {
		d.silence = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	if c.Version == 5 {
		w, present, err = c.dial5(ctx, d)
	} else {
		w, present, err = c.dial3(ctx, d)
	}
	return w, present, classify(err)
}
