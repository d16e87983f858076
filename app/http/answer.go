package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/app"
	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// StatusError is a status that is not a success. Errors of an [App] that have
// one in their chain have the kind it stands for.
type StatusError struct {
	Path   string
	Status int
	// Body is the beginning of what the app said, for people.
	Body string
}

// Error names path, status and the beginning of the body.
func (e *StatusError) Error() string {
	text := "call app at " + e.Path + ": answered " + strconv.Itoa(e.Status)
	if name := http.StatusText(e.Status); name != "" {
		text += " " + name
	}
	if e.Body != "" {
		text += fmt.Sprintf(": %q", e.Body)
	}
	return text
}

// HTTPStatus returns the status, by which a policy may judge the error.
func (e *StatusError) HTTPStatus() int { return e.Status }

// statusError returns the error of an answer that is not a success. Its
// RetryAfter is how long the app asked to wait.
func statusError(path string, a *Answer, now time.Time) error {
	const shown = 120
	body := bytes.TrimSpace(a.Body)
	err := fault.As(fault.FromHTTPStatus(a.Status), &StatusError{
		Path: path, Status: a.Status, Body: string(body[:min(len(body), shown)]),
	})
	if after := min(clienthttp.RetryAfter(a.Header, now), app.MaxPause); after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}

// eventOutcome is the contract's table.
func eventOutcome(path string, a *Answer, now time.Time) cloudevents.Outcome {
	switch {
	case a.Status/100 == 2:
		return statusOutcome(path, a.Body)
	case a.Status == http.StatusNotFound:
		return cloudevents.Dropped("app has no route "+path+" (404)", statusError(path, a, now))
	default:
		return app.Retried(statusError(path, a, now))
	}
}

// statusOutcome reads the status in the body of a success. What is not a JSON
// object with a text as its status is a success without words.
func statusOutcome(path string, body []byte) cloudevents.Outcome {
	body = bytes.TrimSpace(body)
	if len(body) == 0 || body[0] != '{' || string(body) == `{"status":"SUCCESS"}` {
		return cloudevents.Acked()
	}
	var said struct {
		Status     string          `json:"status"`
		RetryAfter json.RawMessage `json:"retryAfter"`
	}
	if json.Unmarshal(body, &said) != nil {
		return cloudevents.Acked()
	}
	return app.WordOutcome(path, said.Status, pause(said.RetryAfter))
}

// pause reads a string or a number of seconds; anything else is no pause.
func pause(raw json.RawMessage) time.Duration {
	var text string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		return app.Pause(text)
	}
	return app.Pause(string(raw))
}

// names is one name or a list of them.
type names []string

// UnmarshalJSON reads either form.
func (n *names) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		if *n = nil; one != "" {
			*n = names{one}
		}
		return nil
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	*n = list
	return nil
}

// readReply returns the reply in the body of a success, or nil when it is
// something else.
func readReply(body []byte) *app.Reply {
	body = bytes.TrimSpace(body)
	if len(body) == 0 || body[0] != '{' {
		return nil
	}
	var fields struct {
		To    json.RawMessage `json:"to"`
		State json.RawMessage `json:"state"`
	}
	if json.Unmarshal(body, &fields) != nil || empty(fields.To) && empty(fields.State) {
		return nil
	}
	var r struct {
		StoreName   string            `json:"storeName"`
		State       []state.Document  `json:"state"`
		To          names             `json:"to"`
		Concurrency string            `json:"concurrency"`
		Data        json.RawMessage   `json:"data"`
		Operation   string            `json:"operation"`
		Metadata    map[string]string `json:"metadata"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return &app.Reply{Err: fault.New(fault.Invalid, "read the app's reply: %w", err)}
	}
	switch r.Concurrency {
	case "", "sequential", "parallel":
	default:
		return &app.Reply{Err: fault.New(fault.Invalid, "read the app's reply: concurrency %.40q is neither sequential nor parallel", r.Concurrency)}
	}
	if r.Operation == "" {
		r.Operation = "create"
	}
	var changes []state.Change
	for i := range r.State {
		c, err := r.State[i].Change()
		if err != nil {
			return &app.Reply{Err: fault.Wrap(err, "read the app's reply")}
		}
		changes = append(changes, c)
	}
	return &app.Reply{
		StoreName: r.StoreName, State: changes, To: r.To, Concurrency: r.Concurrency,
		Data: replyData(r.Data), Operation: r.Operation, Metadata: r.Metadata,
	}
}

func empty(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func replyData(raw json.RawMessage) []byte {
	if empty(raw) {
		return nil
	}
	var text string
	if raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		return []byte(text)
	}
	return raw
}
