package message

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// writes are the lengths of what is written to a connection.
type writes struct {
	net.Conn
	lengths []int
}

// Write implements [io.Writer].
func (w *writes) Write(p []byte) (int, error) {
	w.lengths = append(w.lengths, len(p))
	return w.Conn.Write(p)
}

// A piece of a body of unknown length leaves in one write with what is around it.
func TestAPieceIsOneWrite(t *testing.T) {
	t.Parallel()
	const pieces = 8
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	var seen *writes
	transport := &http.Transport{WriteBufferSize: WriteBuffer, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		seen = &writes{Conn: c}
		return seen, err
	}}
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	body := io.LimitReader(zeros{}, pieces*piece)
	answer, err := RoundTrip(t.Context(), transport, u, &Request{Verb: "POST", Header: http.Header{}, Body: io.NopCloser(body), Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	transport.CloseIdleConnections()
	if n := len(seen.lengths); n < pieces || n > pieces+2 { // the head and the end may be by themselves
		t.Errorf("%d pieces are %d writes: %d", pieces, n, seen.lengths)
	}
}

type zeros struct{}

// Read implements [io.Reader].
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
