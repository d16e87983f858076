package message

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// Receive makes a call of a request that came over HTTP, with a path that [Path]
// returned. The call's headers are a clean copy; its body is read as it arrives,
// also while the answer is written, and may take as long as it likes as long as it
// goes on. What it returns beside the call must be called when the call was carried
// out, before the answer is written.
func Receive(w http.ResponseWriter, r *http.Request, path string) (call *Request, received func()) {
	call = &Request{Verb: r.Method, Path: path, Query: r.URL.RawQuery, Header: r.Header.Clone(), Length: r.ContentLength, Trailer: r.Trailer}
	call.Upgrade = Upgrade(r)
	Clean(call.Header)
	arrival := http.NewResponseController(w)
	_ = arrival.SetReadDeadline(time.Time{}) // a call may take as long as it likes
	if r.ContentLength == 0 {
		return call, func() {}
	}
	_ = arrival.EnableFullDuplex() // HTTP/2 always is
	body := &timed{ReadCloser: r.Body, w: arrival}
	call.Body = body
	return call, func() {
		if r.ContentLength < 0 && !body.ended.Load() {
			leave(w, r)
		}
	}
}

// pieceTime is how long the next piece of a body may be on its way.
const pieceTime = 5 * time.Minute

// leave makes a connection end with the answer. In full duplex net/http goes on
// behind a body of chunks that it could not read to its end, and takes what comes
// there for another request.
func leave(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// timed is a request's body, each piece of which must arrive in time.
type timed struct {
	io.ReadCloser
	w     *http.ResponseController
	ended atomic.Bool // it was read to its end
}

// Read implements [io.Reader].
func (u *timed) Read(p []byte) (int, error) {
	// It fails where there is no connection, as in tests.
	_ = u.w.SetReadDeadline(time.Now().Add(pieceTime))
	n, err := u.ReadCloser.Read(p)
	if err != nil {
		_ = u.w.SetReadDeadline(time.Time{})
	}
	if err == io.EOF {
		u.ended.Store(true)
	}
	return n, err
}

// Head copies the headers of an answer to those of a response.
func Head(h http.Header, answer *Response) {
	ForHTTP(answer.Header)
	maps.Copy(h, answer.Header)
	if _, set := h["Content-Type"]; !set {
		h["Content-Type"] = nil // lest net/http guesses
	}
	if answer.RPC == nil {
		for name := range answer.Trailer {
			h.Add("Trailer", name)
		}
	}
}

// Relay writes an answer. Pieces of a body of unknown length are sent as they
// come; a body that breaks off ends the connection, so that it is not taken for
// whole.
func Relay(w http.ResponseWriter, answer *Response) {
	Head(w.Header(), answer)
	if answer.Length >= 0 && len(answer.Trailer) == 0 && answer.Status != http.StatusNoContent && answer.Status != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.FormatInt(answer.Length, 10))
	}
	w.WriteHeader(answer.Status)
	flush := func() error { return nil }
	if answer.Length < 0 {
		flush = http.NewResponseController(w).Flush
		_ = flush() // the head; it fails when the client is gone, as the next one will
	}
	if err := pump(w, answer, flush); err != nil {
		panic(http.ErrAbortHandler)
	}
	if answer.RPC != nil {
		return
	}
	announced := w.Header()["Trailer"]
	for name, values := range answer.Trailer {
		if !Good(name, values) || OneHop(name) {
			continue
		}
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		w.Header()[name] = values
	}
}

// piece is how much of a body is read at once, in bytes; largePiece, of one that comes
// faster than that.
const (
	piece      = 32 << 10
	largePiece = 256 << 10
)

// pump copies a body, with a flush after each piece.
func pump(w io.Writer, answer *Response, flush func() error) error {
	size := int64(piece)
	if answer.Length >= 0 {
		size = min(size, answer.Length+1) // one more, to see the end with it
	}
	buf := make([]byte, size)
	for {
		n, err := answer.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := flush(); err != nil {
				return err
			}
		}
		if n == piece && n == len(buf) {
			buf = make([]byte, largePiece)
		}
		switch err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}
