package rabbitmq

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/fault"
	server "github.com/penstock-io/penstock/test/fake/amqp"
)

// brittle is a connection that can be made to take nothing any more.
type brittle struct {
	net.Conn
	broken atomic.Bool
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.broken.Load() {
		return 0, errors.New("broken pipe")
	}
	return b.Conn.Write(p)
}

// A connection that breaks says so a moment before its channels know of it: what
// is published then is not wrong, and may be published again.
func TestABreakIsNoFaultOfTheMessage(t *testing.T) {
	t.Parallel()
	b := &brittle{}
	g := &gatherer{Conn: b}
	dial := func(network, addr string) (net.Conn, error) {
		var err error
		b.Conn, err = net.Dial(network, addr)
		return g, err
	}
	conn, err := amqp.DialConfig(server.Start(t).URL(), amqp.Config{Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	p := &publisher{session: &session{out: g}, ch: ch, closed: ch.NotifyClose(make(chan *amqp.Error, 1)), returns: make(chan amqp.Return)}
	b.broken.Store(true)
	good := &Message{Publishing: amqp.Publishing{Body: make([]byte, 2*gathered)}} // is written at once
	bad := &Message{Publishing: amqp.Publishing{Headers: amqp.Table{"x": struct{}{}}}}
	a := p.attempt([]*Message{bad, good})
	a.run(true)
	errs := a.result()
	if len(errs) != 2 || fault.KindOf(errs[0]) != fault.Invalid || fault.KindOf(errs[1]) != fault.Unavailable {
		t.Errorf("ended with %v, want invalid and unavailable", errs)
	}
}
