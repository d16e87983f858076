package mqtt

import (
	"context"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	pahosession "github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/penstock-io/penstock/fault"
)

// keyProperty is the user property with the ordering key.
const keyProperty = "penstock-key"

// wire5 speaks MQTT 5.
type wire5 struct {
	client  *paho.Client
	conn    *parting
	session *session5
	limit   uint32 // bytes of a packet; 0 is none
	once    sync.Once
}

// session5 is the library's, except that it acknowledges when we say so and that
// the answer to a publish can be had without waiting for it.
type session5 struct{ *state.State }

// Ack implements session.SessionManager: the library calls it when a message was
// handed over, which is too early.
func (session5) Ack(*packets.Publish) error { return nil }

// answerKey is the context's key of the channel for the answer to a publish.
type answerKey struct{}

// AddToSession implements session.SessionManager.
func (s session5) AddToSession(ctx context.Context, p pahosession.Packet, answers chan<- packets.ControlPacket) error {
	if own, ok := ctx.Value(answerKey{}).(chan packets.ControlPacket); ok {
		answers = own
	}
	return s.State.AddToSession(ctx, p, answers)
}

func (c Config) dial5(ctx context.Context, d dialing) (wire, bool, error) {
	conn, err := c.network(ctx)
	if err != nil {
		return nil, false, err
	}
	w := &wire5{conn: conn, session: &session5{state.NewInMemory()}}
	var once sync.Once
	lost := func(err error) {
		once.Do(func() {
			if d.lost != nil {
				d.lost(err)
			}
		})
	}
	w.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), Session: w.session, PacketTimeout: connectTimeout,
		OnClientError: lost,
		OnServerDisconnect: func(p *paho.Disconnect) {
			text := ""
			if p.Properties != nil {
				text = p.Properties.ReasonString
			}
			lost(&reasonError{p.ReasonCode, text})
		},
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			w.received(p.Packet, d.receive)
			return true, nil
		}},
	})
	ca, err := w.client.Connect(ctx, c.connect5(d))
	if err != nil {
		_ = conn.Close()
		_ = w.session.Close()
		if ca != nil && ca.ReasonCode >= refused {
			text := ""
			if ca.Properties != nil {
				text = ca.Properties.ReasonString
			}
			err = &reasonError{ca.ReasonCode, text}
		}
		return nil, false, err
	}
	if ca.Properties != nil && ca.Properties.MaximumPacketSize != nil {
		w.limit = *ca.Properties.MaximumPacketSize
	}
	return w, ca.SessionPresent, nil
}

func (c Config) connect5(d dialing) *paho.Connect {
	window, expiry := uint16(c.MaxInFlight), uint32(math.MaxUint32)
	if c.Expiry > 0 {
		expiry = uint32(min(c.Expiry/time.Second, math.MaxUint32-1))
	}
	p := &paho.Connect{
		ClientID: d.id, KeepAlive: uint16(d.keepAlive / time.Second), CleanStart: d.clean,
		Properties: &paho.ConnectProperties{ReceiveMaximum: &window, RequestProblemInfo: true},
	}
	if !d.clean {
		p.Properties.SessionExpiryInterval = &expiry
	}
	if name, password := c.user(); name != "" {
		p.UsernameFlag, p.Username = true, name
		if password != "" {
			p.PasswordFlag, p.Password = true, []byte(password)
		}
	}
	if m := d.will; m != nil {
		p.WillMessage = &paho.WillMessage{Topic: m.Topic, Payload: m.Body, QoS: m.QoS, Retain: m.Retain}
	}
	return p
}

// received makes a message of a packet.
func (w *wire5) received(p *paho.Publish, receive func(*Received)) {
	r := &Received{Topic: p.Topic, Body: p.Payload, QoS: p.QoS, Retained: p.Retain, id: p.PacketID, dup: p.Duplicate()}
	if r.QoS > 0 {
		r.ack = func() { _ = w.session.State.Ack(&packets.Publish{QoS: p.QoS, PacketID: p.PacketID}) } // sent again when it fails
	}
	if receive == nil {
		if r.ack != nil {
			r.ack()
		}
		return
	}
	if props := p.Properties; props != nil {
		r.ContentType = props.ContentType
		for _, u := range props.User {
			if u.Key == keyProperty {
				r.Key = u.Value
				continue
			}
			if r.Properties == nil {
				r.Properties = make(map[string]string, len(props.User))
			}
			r.Properties[u.Key] = u.Value
		}
	}
	receive(r)
}

func (w *wire5) send(ctx context.Context, m *Message) (func(context.Context) error, error) {
	p, size := publish5(m)
	if w.limit > 0 && uint32(size) > w.limit {
		return nil, fault.New(fault.Invalid, "message of %d bytes: the server takes %d at most", len(m.Body), w.limit)
	}
	if m.QoS == 0 {
		_, err := w.client.Publish(ctx, p)
		return func(context.Context) error { return nil }, err
	}
	answers := make(chan packets.ControlPacket, 1)
	_, err := w.client.PublishWithOptions(context.WithValue(ctx, answerKey{}, answers), p, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		select {
		case a := <-answers:
			return answered(a)
		case <-w.client.Done():
			select {
			case a := <-answers: // just in time
				return answered(a)
			default:
				return paho.ErrConnectionLost
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil
}

// answered is what the server's answer to a publish says.
func answered(a packets.ControlPacket) error {
	code, text := byte(0), ""
	switch p := a.Content.(type) {
	case *packets.Puback:
		code = p.ReasonCode
		if p.Properties != nil {
			text = p.Properties.ReasonString
		}
	case *packets.Pubrec:
		code = p.ReasonCode
	case *packets.Pubcomp:
		code = p.ReasonCode
	default:
		return paho.ErrConnectionLost
	}
	if code >= refused {
		return &reasonError{code, text}
	}
	return nil
}

// publish5 makes the packet of a message, and about how large it is.
func publish5(m *Message) (p *paho.Publish, size int) {
	props := &paho.PublishProperties{ContentType: valid(m.ContentType)}
	size = len(m.Topic) + len(m.Body) + len(props.ContentType) + 16
	if !m.Expires.IsZero() {
		left := time.Until(m.Expires)
		seconds := uint32(max(1, min((left+time.Second-1)/time.Second, math.MaxUint32)))
		props.MessageExpiry = &seconds
	}
	add := func(k, v string) {
		props.User = append(props.User, paho.UserProperty{Key: k, Value: v})
		size += len(k) + len(v) + 5
	}
	for k, v := range m.Properties {
		if k != keyProperty {
			add(valid(k), valid(v))
		}
	}
	if m.Key != "" {
		add(keyProperty, valid(m.Key))
	}
	return &paho.Publish{Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Payload: m.Body, Properties: props}, size
}

// valid makes a text what the protocol takes.
func valid(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "")
	}
	return s
}

// idInUse is the reason of a server that counts the messages it has sent among
// the packets of the client: a message that is not acknowledged, as after a
// session is resumed, then takes the number of a request.
const idInUse = 0x91

// idTries is how many numbers a request tries; each has the next one.
const idTries = 16

func (w *wire5) subscribe(ctx context.Context, filter string, qos byte) error {
	return tryIDs(func() (reasons []byte, err error) {
		sa, err := w.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos, RetainHandling: 1}}})
		if sa != nil {
			reasons = sa.Reasons
		}
		return reasons, err
	})
}

func (w *wire5) unsubscribe(ctx context.Context, filter string) error {
	return tryIDs(func() (reasons []byte, err error) {
		ua, err := w.client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{filter}})
		if ua != nil {
			reasons = ua.Reasons
		}
		return reasons, err
	})
}

// tryIDs makes a request of one topic until its number is not in use.
func tryIDs(request func() (reasons []byte, err error)) error {
	for try := 1; ; try++ {
		reasons, err := request()
		if len(reasons) == 0 || reasons[0] < refused {
			return classify(err)
		}
		if reasons[0] != idInUse || try == idTries {
			return classify(&reasonError{code: reasons[0]})
		}
	}
}

func (w *wire5) close() {
	w.once.Do(func() {
		_ = w.conn.SetWriteDeadline(time.Now().Add(lastWords))
		w.conn.leave()
		_ = w.client.Disconnect(&paho.Disconnect{}) // it may be gone already
		_ = w.session.Close()
	})
}
