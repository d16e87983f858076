package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// smallBody is how much of a body is read before one of the slots is taken, so
// that slow senders of small bodies keep nobody out. maxConns times this is
// the memory they can hold.
const smallBody = 64 << 10

// discarded is how much of a refused body is read for its sender's sake.
const discarded = 256 << 10

// answer is what a request gets back.
type answer struct {
	status int
	kind   string // content type
	body   string
	after  time.Duration // Retry-After, when not zero
	ids    []string      // of events, the first few
}

func refuse(status int, text string) answer {
	return answer{status: status, kind: "text/plain; charset=utf-8", body: text + "\n"}
}

func later(status int, text string, after time.Duration) answer {
	a := refuse(status, text)
	a.after = max(after, time.Second)
	return a
}

func done(status int, word string, n, duplicates int) answer {
	body, _ := json.Marshal(struct { // strings and numbers always marshal
		Outcome    string `json:"outcome"`
		Events     int    `json:"events"`
		Duplicates int    `json:"duplicates,omitempty"`
	}{word, n, duplicates})
	return answer{status: status, kind: "application/json", body: string(body) + "\n"}
}

// ServeHTTP takes one request from the outside.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.rescue(w)
	if r.Method == http.MethodOptions {
		h.handshake(w, r)
		return
	}
	began := h.now()
	a := h.handle(w, r)
	h.requests.add(r, &a, began, h.now().Sub(began))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	head := w.Header()
	head.Set("Content-Type", a.kind)
	head.Set("Content-Length", strconv.Itoa(len(a.body)))
	head.Set("X-Content-Type-Options", "nosniff")
	if a.after > 0 {
		head.Set("Retry-After", strconv.FormatInt(int64((a.after+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body) // a sender that went away sends again
}

func (h *hook) rescue(w http.ResponseWriter) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	h.log.Error("webhook request panicked", "panic", v, "stack", string(debug.Stack()))
	w.WriteHeader(http.StatusInternalServerError)
}

func (h *hook) handle(w http.ResponseWriter, r *http.Request) answer {
	if !slices.Contains(h.o.Methods, r.Method) {
		w.Header().Set("Allow", strings.Join(h.o.Methods, ", "))
		return refuse(http.StatusMethodNotAllowed, "this webhook takes "+strings.Join(h.o.Methods, ", "))
	}
	stopped, ok := h.enter()
	if !ok {
		return later(http.StatusServiceUnavailable, "not taking requests now", retryLater)
	}
	defer h.leave()
	if a, refused := h.checkHead(r); refused {
		return a
	}
	body, a, ok := h.readBody(w, r)
	if !ok {
		return a
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return later(http.StatusTooManyRequests, "too many requests at once", time.Second)
	}
	return h.take(r, body, stopped)
}

// checkHead refuses what can be refused before the body is read.
func (h *hook) checkHead(r *http.Request) (answer, bool) {
	origin := r.Header.Get("Origin")
	switch coding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); {
	case coding != "" && coding != "identity":
		return refuse(http.StatusUnsupportedMediaType, "a compressed body is not taken"), true
	case r.ContentLength > int64(h.o.MaxBody):
		return h.tooLarge(), true
	case h.scheme == nil && origin != "" && !h.allows(origin):
		// Senders are programs. A page in somebody's browser that reaches this
		// address is not one of them.
		return refuse(http.StatusForbidden, "requests of browsers are not taken from this origin"), true
	}
	return answer{}, false
}

func (h *hook) tooLarge() answer {
	return refuse(http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.FormatInt(int64(h.o.MaxBody), 10)+" bytes")
}

// readBody reads the body within the limits. Large ones take a slot for it.
func (h *hook) readBody(w http.ResponseWriter, r *http.Request) ([]byte, answer, bool) {
	limited := http.MaxBytesReader(w, r.Body, int64(h.o.MaxBody))
	body, err := io.ReadAll(io.LimitReader(limited, smallBody))
	if err == nil && len(body) == smallBody {
		select {
		case h.slots <- struct{}{}:
		default:
			// A sender that wants the connection closed sees a reset instead of the
			// answer while it still writes.
			_, _ = io.CopyN(io.Discard, limited, discarded)
			return nil, later(http.StatusTooManyRequests, "too many requests at once", time.Second), false
		}
		// Only a sender that has come so far is believed about the length.
		room := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 2*smallBody)+bytes.MinRead))
		room.Write(body)
		_, err = room.ReadFrom(limited)
		body = room.Bytes()
		<-h.slots
	}
	if err == nil {
		// From here on the connection is only watched for its end.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		return body, answer{}, true
	}
	w.Header().Set("Connection", "close")
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, h.tooLarge(), false
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, refuse(http.StatusRequestTimeout, "the body took too long"), false
	}
	return nil, refuse(http.StatusBadRequest, "the body ended early"), false
}

// take verifies the request and hands its events on.
func (h *hook) take(r *http.Request, body []byte, stopped <-chan struct{}) answer {
	if h.scheme != nil {
		if err := h.scheme.verify(r.Header, body, h.now()); err != nil {
			h.note(r.RemoteAddr, err)
			return refuse(http.StatusUnauthorized, "unauthorized")
		}
	}
	if h.o.preset() == slack {
		if text, asked := slackChallenge(r.Header, body); asked {
			return answer{status: http.StatusOK, kind: "text/plain; charset=utf-8", body: text}
		}
	}
	items, err := h.items(r.Header, body)
	switch {
	case errors.Is(err, errFormat):
		return refuse(http.StatusUnsupportedMediaType, err.Error())
	case errors.Is(err, errTooMany):
		return refuse(http.StatusRequestEntityTooLarge, err.Error())
	case err != nil:
		h.log.Debug("webhook request not understood", "remote", r.RemoteAddr, "error", err)
		return refuse(http.StatusBadRequest, err.Error())
	case len(items) == 0:
		return done(http.StatusOK, "ack", 0, 0)
	}
	a := answer{}
	if h.spool != nil {
		a = h.keep(r.Context(), items)
	} else {
		a = h.deliver(r.Context(), items, stopped)
	}
	a.ids = idsOf(items)
	return a
}

// keep answers once the events are on the disk.
func (h *hook) keep(ctx context.Context, items []item) answer {
	// A sender that goes away must not leave it open whether the commit
	// happened.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bodyTimeout)
	defer cancel()
	duplicates, err := h.spool.put(ctx, items)
	if err != nil {
		if fault.KindOf(err) != fault.Exhausted {
			h.log.Error("webhook event not stored", "error", err)
		}
		return later(http.StatusServiceUnavailable, "the event cannot be stored now", retryLater)
	}
	word := "accepted"
	if duplicates == len(items) {
		word = "duplicate"
	}
	return done(http.StatusAccepted, word, len(items), duplicates)
}

// deliver hands every event to the route and waits for all outcomes.
func (h *hook) deliver(ctx context.Context, items []item, stopped <-chan struct{}) answer {
	ctx, cancel := context.WithTimeout(ctx, h.o.Timeout)
	defer cancel()
	entries := make([]*entry, 0, len(items))
	duplicates := 0
	for _, it := range items {
		e, fresh := h.memory.claim(it.key)
		entries = append(entries, e)
		if !fresh {
			duplicates++
			continue
		}
		if !h.handOver(ctx, it, e, stopped) {
			h.memory.finish(it.key, e, cloudevents.Left("nobody took it"))
			return h.interrupted(ctx)
		}
	}
	dropped, retry, wait := 0, false, time.Duration(0)
	for _, e := range entries {
		select {
		case <-e.done:
		case <-ctx.Done():
			return h.interrupted(ctx)
		case <-h.cut:
			return h.interrupted(ctx)
		}
		switch {
		case !taken(e.outcome):
			retry, wait = true, max(wait, e.outcome.After)
		case e.outcome.Verdict == cloudevents.Drop:
			dropped++
		}
	}
	return settle(len(items), duplicates, dropped, retry, wait)
}

// settle turns the outcomes of a request's events into its answer. One that
// must be tried again makes the sender send all of them again; those that were
// taken are known by their ids then.
func settle(events, duplicates, dropped int, retry bool, wait time.Duration) answer {
	switch {
	case retry && wait == 0:
		return later(http.StatusServiceUnavailable, "not delivered; send again", retryLater)
	case retry:
		return later(http.StatusServiceUnavailable, "not delivered; send again", wait)
	case duplicates == events:
		return done(http.StatusOK, "duplicate", events, duplicates)
	case dropped == events:
		return done(http.StatusOK, "drop", events, duplicates)
	}
	return done(http.StatusOK, "ack", events, duplicates)
}

// handOver gives one event to Read and tells whether it was taken.
func (h *hook) handOver(ctx context.Context, it item, e *entry, stopped <-chan struct{}) bool {
	d := &cloudevents.Delivery{
		Body: it.body, Event: it.event, Metadata: it.metadata, Attempt: 1, Origin: h.name,
		Settle: func(o cloudevents.Outcome) { h.memory.finish(it.key, e, o) },
	}
	select {
	case h.queue <- d:
		return true
	case <-ctx.Done():
	case <-stopped:
	case <-h.cut:
	}
	return false
}

// interrupted is the answer of a request that did not see all outcomes.
func (h *hook) interrupted(ctx context.Context) answer {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return later(http.StatusGatewayTimeout, "not settled in time; send again", retryLater)
	}
	return later(http.StatusServiceUnavailable, "stopping; send again", retryLater)
}
