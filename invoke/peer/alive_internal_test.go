package peer

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/penstock-io/penstock/invoke/message"
)

// frozen takes connections and reads what comes; it answers to look only.
func frozen(t *testing.T, look func() bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.ReadFull(c, make([]byte, len(hello)))
				_, _ = io.WriteString(c, welcome)
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if string(buf[:min(n, 4+len(aliveURI))]) == "GET "+aliveURI && look() {
						_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A call waits for a peer that is slow, as long as it is there, and for none that is
// not.
func TestACallOfAFrozenPeerEnds(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	w := newWay(frozen(t, func() bool { return looks.Add(1) <= 3 }), nil)
	defer w.close()
	w.ask, w.answer = 20*time.Millisecond, 200*time.Millisecond
	_, err := w.call(t.Context(), &message.Request{Verb: "GET", Path: "x", Header: http.Header{}})
	e, ok := errors.AsType[statusError](err)
	if !ok || e.Code() != codes.Unavailable || message.IsUnsent(err) || looks.Load() != 4 {
		t.Errorf("%v after %d looks", err, looks.Load())
	}
}

// Nobody asks behind the end of the way any more.
func TestTheEndOfTheWayEndsTheAsking(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	w := newWay(frozen(t, func() bool {
		select {
		case asked <- struct{}{}:
		default:
		}
		return false
	}), nil)
	w.ask, w.answer = time.Millisecond, time.Hour
	ended := make(chan error)
	go func() {
		_, err := w.call(t.Context(), &message.Request{Verb: "GET", Path: "x", Header: http.Header{}})
		ended <- err
	}()
	<-asked
	w.close()
	w.mu.Lock()
	if w.watch != nil {
		t.Error("somebody still asks")
	}
	w.mu.Unlock()
	if err := <-ended; err == nil {
		t.Error("the call was answered")
	}
}
