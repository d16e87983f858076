package mqtt

import (
	"context"
	"net"
	"net/url"
	"sync"

	v3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/penstock-io/penstock/fault"
)

// wire3 speaks MQTT 3.1.1.
type wire3 struct {
	client v3.Client
	conn   *parting      // nil before it is open
	gone   chan struct{} // closed when the connection has ended
	once   sync.Once
	ended  sync.Once
}

func (c Config) dial3(ctx context.Context, d dialing) (wire, bool, error) {
	o := v3.NewClientOptions().AddBroker("tcp://server:1"). // network is what counts
								SetClientID(d.id).SetCleanSession(d.clean).SetProtocolVersion(4).
								SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(connectTimeout).SetWriteTimeout(connectTimeout).
								SetKeepAlive(d.keepAlive).SetPingTimeout(d.silence).
								SetAutoAckDisabled(true).SetOrderMatters(true)
	if name, password := c.user(); name != "" {
		o.SetUsername(name).SetPassword(password)
	}
	if d.will != nil {
		o.SetBinaryWill(d.will.Topic, d.will.Body, d.will.QoS, d.will.Retain)
	}
	w := &wire3{gone: make(chan struct{})}
	o.SetConnectionLostHandler(func(_ v3.Client, err error) {
		w.end()
		if d.lost != nil {
			d.lost(err)
		}
	})
	var failed error // of the network: the library does not keep its kind
	var stop func() bool
	o.SetCustomOpenConnectionFn(func(*url.URL, v3.ClientOptions) (net.Conn, error) {
		conn, err := c.network(ctx)
		if err != nil {
			failed = err
			return nil, err
		}
		w.conn = conn
		stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // the library does not look at ctx
		return conn, nil
	})
	o.SetDefaultPublishHandler(func(_ v3.Client, m v3.Message) {
		r := &Received{Topic: m.Topic(), Body: m.Payload(), QoS: m.Qos(), Retained: m.Retained(), id: m.MessageID(), dup: m.Duplicate()}
		if r.QoS > 0 {
			r.ack = m.Ack
		}
		if d.receive != nil {
			d.receive(r)
		} else if r.ack != nil {
			r.ack()
		}
	})
	w.client = v3.NewClient(o)
	t := w.client.Connect().(*v3.ConnectToken)
	<-t.Done()
	if stop != nil {
		stop()
	}
	if err := t.Error(); err != nil {
		if failed != nil {
			err = failed
		}
		return nil, false, err
	}
	return w, t.SessionPresent(), nil
}

func (w *wire3) end() { w.ended.Do(func() { close(w.gone) }) }

// answer waits for a token, which the library forgets at times when the
// connection is lost.
func (w *wire3) answer(ctx context.Context, t v3.Token) error {
	select {
	case <-t.Done():
		return classify(t.Error())
	case <-w.gone:
		select {
		case <-t.Done():
			return classify(t.Error())
		default:
			return fault.New(fault.Unavailable, "connection lost")
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *wire3) send(_ context.Context, m *Message) (func(context.Context) error, error) {
	t := w.client.Publish(m.Topic, m.QoS, m.Retain, m.Body)
	return func(ctx context.Context) error { return w.answer(ctx, t) }, nil
}

// refused is what the server answers to a subscription that it does not make.
const refused = 0x80

func (w *wire3) subscribe(ctx context.Context, filter string, qos byte) error {
	t := w.client.Subscribe(filter, qos, nil)
	if err := w.answer(ctx, t); err != nil {
		return err
	}
	for _, code := range t.(*v3.SubscribeToken).Result() {
		if code == refused {
			return fault.New(fault.Denied, "the server refuses the subscription")
		}
	}
	return nil
}

func (w *wire3) unsubscribe(ctx context.Context, filter string) error {
	return w.answer(ctx, w.client.Unsubscribe(filter))
}

// quiesce is how long a disconnect may take, in milliseconds.
const quiesce = 1000

func (w *wire3) close() {
	w.once.Do(func() {
		w.conn.leave() // it is open, else there would be no wire
		w.client.Disconnect(quiesce)
		w.end()
	})
}
