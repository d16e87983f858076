package http

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/penstock-io/penstock/fault"
	msg "github.com/penstock-io/penstock/invoke/message"
)

// upgrading is an app that answers each line with itself, on a connection that has
// become something else.
func upgrading(t *testing.T, protocol string) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Connection") != "Upgrade" || r.Header.Get("Upgrade") != "websocket" {
			t.Errorf("the app got %v", r.Header)
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\nX-Key: 1\r\n\r\n")
		for {
			line, err := buffered.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, line)
		}
	})
}

// A connection becomes a WebSocket through the pipeline and without one, and ends
// with the call or when the answer is closed, also when the app says nothing.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	at := upgrading(t, "WebSocket")
	for name, o := range map[string]Options{
		"direct": {},
		"pipeline": {Pipeline: piped(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("X-From", "pipeline")
			next.ServeHTTP(w, r)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := channel(t, at, o)
			for _, end := range []string{"close", "context"} {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				answer, err := c.Invoke(ctx, &msg.Request{Verb: "GET", Path: "ws", Header: http.Header{}, Upgrade: "websocket"})
				if err != nil {
					t.Fatal(err)
				}
				if answer.Status != 101 || answer.Upgraded == nil || answer.Failed() || answer.Header.Get("X-Key") != "1" || answer.Header.Get("Upgrade") != "" {
					t.Fatalf("answer %d %v", answer.Status, answer.Header)
				}
				lines := bufio.NewReader(answer.Body)
				for _, line := range []string{"one\n", "two\n"} {
					if _, err := io.WriteString(answer.Upgraded, line); err != nil {
						t.Fatal(err)
					}
					if got, err := lines.ReadString('\n'); got != line || err != nil {
						t.Fatalf("got %q, %v", got, err)
					}
				}
				if end == "context" {
					cancel()
					if got, err := lines.ReadString('\n'); err == nil {
						t.Errorf("got %q after the end", got)
					}
				}
				_ = answer.Body.Close()
				if n, err := answer.Upgraded.Write([]byte("three\n")); err == nil {
					t.Errorf("wrote %d bytes after the end", n)
				}
			}
		})
	}
}

func TestUpgradeToSomethingElse(t *testing.T) {
	t.Parallel()
	c := channel(t, upgrading(t, "h2c"), Options{})
	_, err := c.Invoke(t.Context(), &msg.Request{Verb: "GET", Path: "ws", Header: http.Header{}, Upgrade: "websocket"})
	if err == nil || fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v, want kind invalid", err)
	}
}
