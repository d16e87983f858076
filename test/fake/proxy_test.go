package fake_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/fake"
)

// echo is a server that sends back what it gets, and the proxy in front of it.
func echo(t *testing.T) *fake.Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	p, err := fake.NewProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); l.Close() })
	return p
}

func dial(t *testing.T, p *fake.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a text and wants it back within a while.
func ask(c net.Conn, text string, within time.Duration) error {
	c.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	buf := make([]byte, len(text))
	_, err := io.ReadFull(c, buf)
	if err == nil && string(buf) != text {
		return errors.New("got " + string(buf))
	}
	return err
}

func mustAsk(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if err := ask(c, text, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func wantTimeout(t *testing.T, err error) {
	t.Helper()
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		t.Fatalf("got %v, want no answer and no error", err)
	}
}

func wantReset(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want a reset", err)
	}
}

// dialAndAsk may be reset while it dials or while it asks.
func dialAndAsk(p *fake.Proxy) error {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return err
	}
	defer c.Close()
	return ask(c, "x", 10*time.Second)
}

func TestPassesBytesAndTheEnd(t *testing.T) {
	t.Parallel()
	c := dial(t, echo(t))
	mustAsk(t, c, "hello")
	c.(*net.TCPConn).CloseWrite()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v after the end, want EOF", err)
	}
}

func TestResetEndsOpenAndNewConnections(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	mustAsk(t, c, "hello")
	p.Set(fake.Network{Reset: true})
	wantReset(t, ask(c, "x", 10*time.Second))
	wantReset(t, dialAndAsk(p))
	p.Set(fake.Network{})
	mustAsk(t, dial(t, p), "again")
}

// TestSilentHoldsBack: nothing comes through and nobody is told; afterwards what
// was held goes on, byte for byte.
func TestSilentHoldsBack(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	mustAsk(t, c, "hello")
	p.Set(fake.Network{Silent: true})
	fresh := dial(t, p)
	wantTimeout(t, ask(c, "held", 50*time.Millisecond))
	wantTimeout(t, ask(fresh, "held", 50*time.Millisecond))
	p.Set(fake.Network{})
	for _, c := range []net.Conn{c, fresh} {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 4)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "held" {
			t.Errorf("got %q, %v after the silence", buf, err)
		}
	}
}

func TestLatencyAndBandwidth(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	for _, n := range []fake.Network{{Latency: 50 * time.Millisecond}, {Bandwidth: 200}} {
		p.Set(n)
		began := time.Now()
		mustAsk(t, c, "0123456789")
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("%+v: there and back in %v, want at least 100ms", n, took)
		}
	}
	p.Set(fake.Network{Latency: time.Hour})
	wantTimeout(t, ask(c, "held", 50*time.Millisecond))
	p.Set(fake.Network{}) // ends the hour
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Error(err)
	}
}

func TestHalfOpenTellsOnlyTheServer(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	mustAsk(t, c, "hello")
	p.HalfOpen()
	wantTimeout(t, ask(c, "lost", 50*time.Millisecond))
	mustAsk(t, dial(t, p), "new")
}

func TestServerThatIsAwayResets(t *testing.T) {
	t.Parallel()
	p, err := fake.NewProxy("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	wantReset(t, dialAndAsk(p))
}
