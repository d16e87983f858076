package http

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/deadletters"
)

// deadLetterRoutes adds the paths of dead letters, which Dapr does not have.
func (h *handler) deadLetterRoutes(m *chi.Mux) {
	const prefix = ownPrefix + "/deadletters"
	m.Get(prefix, h.onListDeadLetters)
	m.Get(prefix+"/{id}", h.onDeadLetter)
	m.Post(prefix+"/replay", h.onReplay)
	m.Post(prefix+"/discard", h.onDiscard)
}

func (h *handler) onListDeadLetters(w http.ResponseWriter, r *http.Request) {
	q, limit, page, err := listQuery(r.URL.RawQuery)
	var p *deadletters.Page
	if err == nil {
		p, err = h.api.ListDeadLetters(r.Context(), q, limit, page)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	respondSecret(w, struct {
		Letters []deadletters.Letter `json:"deadLetters"`
		Next    string               `json:"next,omitempty"`
	}{p.Letters, p.Next})
}

// listQuery reads the parameters of a list; one that is not known is an error,
// because it would otherwise list too much.
func listQuery(raw string) (q *deadletters.Query, limit int, page string, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, 0, "", api.Errorf(api.BadRequest, "read query: %w", err)
	}
	var s selection
	for name, all := range values {
		v := all[len(all)-1]
		switch name {
		case "pubsub":
			s.PubSub = v
		case "topic":
			s.Topic = v
		case "route":
			s.Route = v
		case "kind":
			s.Kind = v
		case "reason":
			s.Reason = v
		case "since":
			s.Since = v
		case "until":
			s.Until = v
		case "filter":
			s.Filter = v
		case "id":
			s.IDs = all
		case "page":
			page = v
		case "attempts":
			s.Attempts, err = wholeNumber(name, v)
		case "limit":
			limit, err = wholeNumber(name, v)
		default:
			err = api.Errorf(api.DeadLetterSelection, "list dead letters: parameter %q is not known; use id, pubsub, topic, route, kind, reason, attempts, since, until, filter, limit, page", cut(name))
		}
		if err != nil {
			return nil, 0, "", err
		}
	}
	q, err = s.query()
	return q, limit, page, err
}

func wholeNumber(name, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, api.Errorf(api.DeadLetterSelection, "read %s: %q is not a whole number", name, cut(text))
	}
	return n, nil
}

// selection is a query as it is written in bodies.
type selection struct {
	IDs      []string `json:"ids"`
	PubSub   string   `json:"pubsub"`
	Topic    string   `json:"topic"`
	Route    string   `json:"route"`
	Kind     string   `json:"kind"`
	Reason   string   `json:"reason"`
	Attempts int      `json:"attempts"`
	Since    string   `json:"since"`
	Until    string   `json:"until"`
	Filter   string   `json:"filter"`
	All      bool     `json:"all"`
}

func (s *selection) query() (*deadletters.Query, error) {
	q := &deadletters.Query{
		IDs: s.IDs, PubSub: s.PubSub, Topic: s.Topic, Route: s.Route, Kind: s.Kind,
		Reason: s.Reason, MinAttempts: s.Attempts, Filter: s.Filter,
	}
	var err error
	if q.Since, err = moment("since", s.Since); err != nil {
		return nil, err
	}
	q.Until, err = moment("until", s.Until)
	return q, err
}

// moment reads a time, or how long ago it was.
func moment(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if d, err := config.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, api.Errorf(api.DeadLetterSelection, "read %s: %q is no time; write 2026-01-31T12:00:00Z, or 1h for an hour ago", name, cut(text))
}

// onDeadLetter writes the body as text where it is some, else as base64; asked
// for anything but JSON it is the body alone, byte for byte.
func (h *handler) onDeadLetter(w http.ResponseWriter, r *http.Request) {
	path, err := names(r, "id")
	var l *deadletters.Letter
	if err == nil {
		l, err = h.api.DeadLetter(r.Context(), path[0])
	}
	if err != nil {
		respondError(w, err)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "application/octet-stream") {
		w.Header().Set("Cache-Control", "no-store")
		respond(w, http.StatusOK, "application/octet-stream", l.Body)
		return
	}
	out := struct {
		*deadletters.Letter
		Body   *string `json:"body,omitempty"`
		Base64 []byte  `json:"bodyBase64,omitempty"`
	}{Letter: l}
	if utf8.Valid(l.Body) {
		out.Body = new(string(l.Body))
	} else {
		out.Base64 = l.Body
	}
	respondSecret(w, out)
}

// onReplay answers when the replay is over. Who accepts application/x-ndjson
// gets a line with the result so far about once a second, and a last one with
// "done": true, or with the error.
func (h *handler) onReplay(w http.ResponseWriter, r *http.Request) {
	var in struct {
		selection
		Rate   float64 `json:"rate"`
		To     string  `json:"to"`
		Body   *string `json:"body"`
		Base64 []byte  `json:"bodyBase64"`
	}
	q, err := h.selected(w, r, &in, &in.selection)
	if err != nil {
		respondError(w, err)
		return
	}
	replay := &deadletters.Replay{Selection: *q, Rate: in.Rate, To: in.To, Body: in.Base64}
	if in.Body != nil {
		replay.Body = []byte(*in.Body)
	}
	lines := &lineWriter{w: w}
	if strings.Contains(r.Header.Get("Accept"), lineType) {
		replay.Progress = func(res deadletters.Result) { lines.write(res) }
	}
	res, err := h.api.ReplayDeadLetters(r.Context(), replay)
	switch {
	case err != nil && lines.begun:
		lines.write(api.AsError(err))
	case err != nil:
		respondError(w, err)
	case replay.Progress != nil:
		lines.write(struct {
			*deadletters.Result
			Done bool `json:"done"`
		}{res, true})
	default:
		respondJSON(w, http.StatusOK, res)
	}
}

func (h *handler) onDiscard(w http.ResponseWriter, r *http.Request) {
	var in selection
	s, err := h.selected(w, r, &in, &in)
	if err != nil {
		respondError(w, err)
		return
	}
	n, lacking, err := h.api.DiscardDeadLetters(r.Context(), s)
	if err != nil {
		respondError(w, err)
		return
	}
	if lacking == nil {
		lacking = []string{}
	}
	respondJSON(w, http.StatusOK, struct {
		Discarded int      `json:"discarded"`
		NotFound  []string `json:"notFound"`
	}{n, lacking})
}

// selected reads the body into v, part of which is s. A field that is not known
// is an error: a misspelt filter must not select everything.
func (h *handler) selected(w http.ResponseWriter, r *http.Request, v any, s *selection) (*deadletters.Selection, error) {
	body, err := h.readBody(w, r)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := strictly(body, v); err != nil {
			return nil, err
		}
	}
	q, err := s.query()
	if err != nil {
		return nil, err
	}
	return &deadletters.Selection{Query: *q, All: s.All}, nil
}

// strictly reads a JSON object that has no fields but those of v.
func strictly(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return api.Errorf(api.Malformed, "read body: %w", err)
	}
	if len(bytes.TrimLeft(body[dec.InputOffset():], jsonSpace)) > 0 {
		return api.Errorf(api.Malformed, "read body: something follows the object")
	}
	return nil
}

const lineType = "application/x-ndjson"

// lineWriter writes one JSON document a line, each at once.
type lineWriter struct {
	w     http.ResponseWriter
	begun bool
}

// write fails only when the client is gone, which the request's context tells.
func (l *lineWriter) write(v any) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", lineType)
		l.w.Header().Set("Cache-Control", "no-store")
	}
	_ = json.NewEncoder(l.w).Encode(v)
	_ = http.NewResponseController(l.w).Flush()
}
