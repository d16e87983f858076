package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// maxRetryAfter is the longest pause that an app can ask for.
const maxRetryAfter = time.Hour

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

// statusError returns the error of an answer that is not a success. Its
// RetryAfter is how long the app asked to wait.
func statusError(path string, a *Answer, now time.Time) error {
	const shown = 120
	body := bytes.TrimSpace(a.Body)
	err := fault.As(fault.FromHTTPStatus(a.Status), &StatusError{
		Path: path, Status: a.Status, Body: string(body[:min(len(body), shown)]),
	})
	if after := min(clienthttp.RetryAfter(a.Header, now), maxRetryAfter); after > 0 {
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
		return retried(statusError(path, a, now))
	}
}

// retried is a Retry not before the pause that err asks for.
func retried(err error) cloudevents.Outcome {
	return cloudevents.Retried(err, fault.RetryAfter(err))
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
	return WordOutcome(path, said.Status, pause(said.RetryAfter))
}

// WordOutcome is what a status word of the app means, at the place that is
// called path: SUCCESS or nothing, RETRY, DROP; any other is a retry. After is
// how long the app asks to wait before a retry.
func WordOutcome(path, word string, after time.Duration) cloudevents.Outcome {
	switch word {
	case "", "SUCCESS":
		return cloudevents.Acked()
	case "DROP":
		return cloudevents.Dropped("app said DROP at "+path,
			fault.New(fault.Dropped, "call app at %s: it said DROP", path))
	case "RETRY":
		err := fault.New(fault.Unavailable, "call app at %s: it said RETRY", path)
		return retried(fault.WithRetryAfter(err, after))
	default:
		return cloudevents.Retried(fault.New(fault.Internal,
			"call app at %s: it said %.40q, which is none of SUCCESS, RETRY and DROP", path, word), 0)
	}
}

// pause reads "30s" or a number of seconds; anything else is no pause.
func pause(raw json.RawMessage) time.Duration {
	var text string
	var seconds float64
	var d time.Duration
	switch {
	case len(raw) == 0:
	case json.Unmarshal(raw, &text) == nil:
		d, _ = time.ParseDuration(text)
	case json.Unmarshal(raw, &seconds) == nil:
		d = time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	return min(max(d, 0), maxRetryAfter)
}

// Reply is what an app may answer to the event of an input binding: state to
// save and output bindings to invoke, as part of the same delivery.
type Reply struct {
	StoreName string
	State     []State
	// To names output bindings.
	To []string
	// Concurrency is "sequential" (also when empty) or "parallel".
	Concurrency string
	// Data is for the output bindings: a JSON string's text, any other JSON
	// value as it was written. Nil when the app said nothing.
	Data []byte
	// Operation is that of the output bindings; default create.
	Operation string
	Metadata  map[string]string
	// Err is why the reply cannot be carried out although it is one: a field
	// has a wrong type. Nothing else is set then.
	Err error
}

// State is one value that a reply asks to save.
type State struct {
	Key      string            `json:"key"`
	Value    json.RawMessage   `json:"value"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
	Options  json.RawMessage   `json:"options"`
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
func readReply(body []byte) *Reply {
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
		State       []State           `json:"state"`
		To          names             `json:"to"`
		Concurrency string            `json:"concurrency"`
		Data        json.RawMessage   `json:"data"`
		Operation   string            `json:"operation"`
		Metadata    map[string]string `json:"metadata"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return &Reply{Err: fault.New(fault.Invalid, "read the app's reply: %w", err)}
	}
	switch r.Concurrency {
	case "", "sequential", "parallel":
	default:
		return &Reply{Err: fault.New(fault.Invalid, "read the app's reply: concurrency %.40q is neither sequential nor parallel", r.Concurrency)}
	}
	if r.Operation == "" {
		r.Operation = "create"
	}
	return &Reply{
		StoreName: r.StoreName, State: r.State, To: r.To, Concurrency: r.Concurrency,
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
