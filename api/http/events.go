package http

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// eventRoutes adds the paths of what happened to events, which Dapr does not have.
func (h *handler) eventRoutes(m *chi.Mux) {
	m.Get(ownPrefix+"/events", h.onEvents)
	m.Get(ownPrefix+"/events/watch", h.onWatchEvents)
}

func (h *handler) onEvents(w http.ResponseWriter, r *http.Request) {
	q, err := readEventQuery(r.URL.RawQuery, "since", "limit")
	var found []journal.Entry
	if err == nil {
		found, err = h.api.Events(q.watching.Filter, q.limit)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	respondJSON(w, http.StatusOK, struct {
		Events []journal.Entry `json:"events"`
	}{found})
}

// The times of a watch.
const (
	heartbeat = 15 * time.Second
	// writeTime is how long a watcher may take to read what is sent to it.
	writeTime = 30 * time.Second
)

// onWatchEvents sends server-sent events until the client goes away or the instance
// stops: each message is one entry, "lost" says how many were left out, "end" that
// nothing more comes.
func (h *handler) onWatchEvents(w http.ResponseWriter, r *http.Request) {
	q, err := readEventQuery(r.URL.RawQuery, "since", "payload", "rate", "after")
	if after, aerr := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); aerr == nil {
		q.watching.After = after
	}
	var watcher *journal.Watcher
	if err == nil {
		watcher, err = h.api.WatchEvents(q.watching)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	defer watcher.Close()
	s := newStream(w)
	for s.send(); s.err == nil; s.send() {
		ctx, cancel := context.WithTimeout(r.Context(), heartbeat)
		b, err := watcher.Next(ctx)
		cancel()
		switch {
		case r.Context().Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			s.write(": nothing yet\n\n")
		case err != nil:
			s.message("end", "", struct {
				Reason string `json:"reason"`
			}{err.Error()})
			s.send()
			return
		default:
			s.batch(b)
		}
	}
}

// stream writes server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	text    []byte
	err     error
}

func newStream(w http.ResponseWriter) *stream {
	s := &stream{w: w, control: http.NewResponseController(w)}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	// The time for reading a request would end it; where none can be set there is
	// none.
	_ = s.control.SetReadDeadline(time.Time{})
	s.write(": what happens from now on\n\n")
	return s
}

func (s *stream) write(text string) { s.text = append(s.text, text...) }

// message adds one event; JSON has no line breaks.
func (s *stream) message(event, id string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		s.err = err
		return
	}
	if event != "" {
		s.write("event: " + event + "\n")
	}
	if id != "" {
		s.write("id: " + id + "\n")
	}
	s.write("data: ")
	s.text = append(append(s.text, data...), "\n\n"...)
}

func (s *stream) batch(b journal.Batch) {
	for i := range b.Entries {
		s.message("", strconv.FormatUint(b.Entries[i].Seq, 10), &b.Entries[i])
	}
	if b.Lost > 0 {
		s.message("lost", "", struct {
			Lost uint64 `json:"lost"`
		}{b.Lost})
	}
}

// send sends what was written. A client that does not read is given up.
func (s *stream) send() {
	if s.err != nil {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime))
	if _, s.err = s.w.Write(s.text); s.err == nil {
		s.err = s.control.Flush()
	}
	s.text = s.text[:0]
}

// eventQuery is which events are meant, and how they are wanted.
type eventQuery struct {
	watching journal.Watching
	limit    int
}

// readEventQuery reads the parameters of a filter and some more; one that is not
// known is an error, because it would otherwise show too much.
func readEventQuery(raw string, more ...string) (q eventQuery, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, api.Errorf(api.BadRequest, "read query: %w", err)
	}
	known := append([]string{"id", "route", "type", "outcome", "trace"}, more...)
	for name, all := range values {
		if !slices.Contains(known, name) {
			return q, api.Errorf(api.EventSelection, "read query: parameter %q is not known; use %s", cut(name), strings.Join(known, ", "))
		}
		if err := q.set(name, all); err != nil {
			return q, err
		}
	}
	return q, nil
}

func (q *eventQuery) set(name string, all []string) (err error) {
	f, v := &q.watching.Filter, all[len(all)-1]
	switch name {
	case "id":
		f.ID = v
	case "route":
		f.Route = v
	case "type":
		f.Type = v
	case "trace":
		f.TraceID = v
	case "outcome":
		f.Outcomes, err = outcomes(all)
	case "since":
		f.Since, err = moment(name, v)
	case "limit":
		q.limit, err = wholeNumber(name, v)
	case "rate":
		q.watching.Rate, err = wholeNumber(name, v)
	case "after":
		q.watching.After, err = strconv.ParseUint(v, 10, 64)
	case "payload":
		q.watching.Payload, err = strconv.ParseBool(v)
	}
	if err != nil {
		return api.Errorf(api.EventSelection, "read %s: %w", name, err)
	}
	return nil
}

// outcomes reads words, each of which may be several with commas between them.
func outcomes(all []string) (list []journal.Outcome, err error) {
	for _, v := range all {
		for word := range strings.SplitSeq(v, ",") {
			o, err := journal.ParseOutcome(strings.TrimSpace(word))
			if err != nil {
				return nil, err
			}
			list = append(list, o)
		}
	}
	return list, nil
}

// onRoutes lists the routes; with a window, as in window=10s, also what each did in
// it.
func (h *handler) onRoutes(w http.ResponseWriter, r *http.Request) {
	all, err := h.listRoutes(r.URL.Query().Get("window"))
	if err != nil {
		respondError(w, err)
		return
	}
	respondJSON(w, http.StatusOK, struct {
		Routes []api.Route `json:"routes"`
	}{all})
}

func (h *handler) listRoutes(window string) ([]api.Route, error) {
	if window == "" {
		return h.api.Routes(), nil
	}
	d, err := config.ParseDuration(window)
	if err != nil {
		return nil, api.Errorf(api.EventSelection, "read window: %w", err)
	}
	return h.api.RecentRoutes(d)
}
