package http

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/invoke/message"
)

// invokePattern is that of calls of other apps, by whichever way their target is
// named. They do not go through the router, which knows nine verbs.
const (
	invokePattern = "/v1.0/invoke/*"
	invokePrefix  = "/v1.0/invoke/"
	appIDHeader   = "Dapr-App-Id"
)

// callee is whom a request calls, and what; both escaped as they were sent.
type callee struct {
	target, method string
	basic          bool // the target stood in the header Authorization
}

// callee finds out whether a request is a call of another app: by its path, or,
// where there is no API at that path, by the header dapr-app-id or a user of that
// name.
func (h *handler) callee(r *http.Request, path string) (c callee, ok bool) {
	if h.public {
		return c, false
	}
	if rest, ok := strings.CutPrefix(path, invokePrefix); ok {
		target, method, found := strings.Cut(rest, "/method/")
		if !found {
			if target, found = strings.CutSuffix(rest, "/method"); !found {
				return c, true
			}
		}
		if target, err := unescape("target", target); err == nil {
			c.target = target
		}
		c.method = method
		return c, true
	}
	id, basic := r.Header.Get(appIDHeader), false
	if id == "" {
		user, password, _ := r.BasicAuth()
		if basic = strings.EqualFold(user, appIDHeader); basic {
			id = password
		}
	}
	if id == "" || h.mux.Find(chi.NewRouteContext(), r.Method, path) != "" {
		return c, false
	}
	return callee{target: id, method: path, basic: basic}, true
}

// invoke carries out a call. The answer goes out as it comes in.
func (h *handler) invoke(w http.ResponseWriter, r *http.Request, c callee) {
	path, err := api.InvokePath(c.method)
	if err != nil {
		respondError(w, err)
		return
	}
	m := &message.Request{
		Verb: r.Method, Path: path, Query: r.URL.RawQuery, Header: r.Header.Clone(), Length: r.ContentLength, Trailer: r.Trailer,
	}
	m.Upgrade = upgrade(r)
	message.Clean(m.Header)
	if c.basic {
		delete(m.Header, "Authorization")
	}
	arrival := http.NewResponseController(w)
	_ = arrival.SetReadDeadline(time.Time{}) // a call may take as long as it likes
	var body *timed
	if r.ContentLength != 0 {
		_ = arrival.EnableFullDuplex() // HTTP/2 always is
		body = &timed{ReadCloser: r.Body, w: arrival}
		m.Body = body
	}
	answer, err := h.api.Invoke(r.Context(), c.target, m)
	if r.ContentLength < 0 && !body.ended.Load() {
		leave(w, r)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	defer answer.Body.Close()
	if answer.RPC != nil && answer.RPC.Code() != 0 {
		respondStatus(w, answer)
		return
	}
	if answer.Upgraded != nil {
		tunnel(w, answer, m.Upgrade)
		return
	}
	relay(w, answer)
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

// respondStatus answers with the status of an app that speaks gRPC.
func respondStatus(w http.ResponseWriter, answer *message.Response) {
	header(w, answer)
	body, err := protojson.Marshal(answer.RPC.Proto())
	if err != nil { // a detail of a type that is not known here
		plain := answer.RPC.Proto()
		plain.Details = nil
		body, _ = protojson.Marshal(plain) // a number and a text
	}
	w.Header().Del("Trailer")
	respond(w, answer.Status, "application/json", body)
}

// header copies the headers of an answer.
func header(w http.ResponseWriter, answer *message.Response) {
	message.ForHTTP(answer.Header)
	h := w.Header()
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

// relay writes an answer. Pieces of a body of unknown length are sent as they
// come; a body that breaks off ends the connection, so that it is not taken for
// whole.
func relay(w http.ResponseWriter, answer *message.Response) {
	header(w, answer)
	if answer.Length >= 0 && len(answer.Trailer) == 0 && answer.Status != http.StatusNoContent && answer.Status != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.FormatInt(answer.Length, 10))
	}
	w.WriteHeader(answer.Status)
	flush := func() error { return nil }
	if answer.Length < 0 {
		flush = http.NewResponseController(w).Flush
		_ = flush() // the head; it fails when the client is gone, as the next one will
	}
	if err := pump(w, answer.Body, flush); err != nil {
		panic(http.ErrAbortHandler)
	}
	if answer.RPC != nil {
		return
	}
	announced := w.Header()["Trailer"]
	for name, values := range answer.Trailer {
		if !message.Good(name, values) || message.OneHop(name) {
			continue
		}
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		w.Header()[name] = values
	}
}

// pump copies a body, with a flush after each piece.
func pump(w io.Writer, body io.Reader, flush func() error) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := flush(); err != nil {
				return err
			}
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
