package mqtt

import (
	"io"
	"net"
	"testing"
	"time"
)

// A server that sends something for each acknowledgement, and reads slowly, has
// all of them in the end.
func TestPartingLosesNoAcknowledgement(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	const acks = 20
	sent, got := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		defer func() { got <- n }()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write(make([]byte, 64)); err != nil {
			return
		}
		<-sent
		for b := make([]byte, 1); ; n++ {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if _, err := c.Write(make([]byte, 64)); err != nil {
				return
			}
		}
	}()
	plain, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &parting{Conn: plain}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil { // the rest stays unread
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, acks)); err != nil {
		t.Fatal(err)
	}
	c.leave()
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	close(sent)
	if n := <-got; n != acks {
		t.Errorf("the server had %d acknowledgements, want %d", n, acks)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
