package graphql

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/fault"
)

// problem is one error of GraphQL.
type problem struct {
	Message    string `json:"message"`
	Path       []any  `json:"path"`
	Extensions struct {
		Code any `json:"code"`
	} `json:"extensions"`
}

// read returns the data of an answer, or the error that it holds.
func read(res *http.Response, body []byte) ([]byte, error) {
	var answer struct {
		Data   json.RawMessage `json:"data"`
		Errors []problem       `json:"errors"`
	}
	bad := json.Unmarshal(body, &answer)
	status := res.StatusCode
	switch {
	case bad == nil && len(answer.Errors) > 0:
		return nil, later(refusal(status, answer.Data, answer.Errors), res.Header)
	case status/100 == 3:
		return nil, fault.New(fault.Denied, "answer %s: redirects are not followed", res.Status)
	case status/100 != 2:
		return nil, later(fault.New(fault.FromHTTPStatus(status), "answer %s: %q", res.Status, short(string(body))), res.Header)
	case bad != nil:
		return nil, fault.New(fault.Invalid, "read answer: it is not JSON: %q", short(string(body)))
	case answer.Data == nil:
		return nil, fault.New(fault.Invalid, "read answer: it has neither data nor errors: is there a GraphQL server at the endpoint?")
	}
	return answer.Data, nil
}

// later passes on when the server wants to be asked again.
func later(err error, h http.Header) error {
	if after := clienthttp.RetryAfter(h, time.Now()); after > 0 {
		return fault.WithRetryAfter(err, after)
	}
	return err
}

// refusal makes one error of those of an answer: the first with its place, and
// how many more there are.
func refusal(status int, data json.RawMessage, list []problem) error {
	first := list[0]
	text := short(first.Message)
	if text == "" {
		text = "an error without a message"
	}
	if len(first.Path) > 0 {
		var path strings.Builder
		for i, part := range first.Path {
			if i > 0 {
				path.WriteByte('.')
			}
			fmt.Fprint(&path, part)
		}
		text += " (at " + short(path.String()) + ")"
	}
	if code := first.code(); code != "" {
		text += " (" + short(code) + ")"
	}
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return fault.New(kind(status, data, list), "%s", text)
}

// kind is that of the worst error: one that cannot pass makes trying again
// useless. A request that was not carried out has no data, and is wrong itself
// unless somebody says otherwise.
func kind(status int, data json.RawMessage, list []problem) fault.Kind {
	worst, known := fault.Internal, false
	for i := range list {
		k, ok := codeKind(list[i].code())
		if ok && (!known || worst.Retriable() && !k.Retriable()) {
			worst, known = k, true
		}
	}
	switch {
	case known:
		return worst
	case status/100 != 2:
		return fault.FromHTTPStatus(status)
	case data == nil:
		return fault.Invalid
	}
	return fault.Internal
}

func (p *problem) code() string {
	if p.Extensions.Code == nil {
		return ""
	}
	return fmt.Sprint(p.Extensions.Code)
}

// codeKind is the kind of a code as servers use them, in whatever spelling.
func codeKind(code string) (fault.Kind, bool) {
	switch strings.ReplaceAll(strings.ToUpper(code), "-", "_") {
	case "BAD_USER_INPUT", "BAD_REQUEST", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "OPERATION_RESOLUTION_FAILURE",
		"PERSISTED_QUERY_NOT_FOUND", "PERSISTED_QUERY_NOT_SUPPORTED", "VALIDATION_FAILED", "PARSE_FAILED", "DATA_EXCEPTION", "400":
		return fault.Invalid, true
	case "UNAUTHENTICATED", "UNAUTHORIZED", "FORBIDDEN", "ACCESS_DENIED", "INVALID_JWT", "INVALID_HEADERS", "PERMISSION_ERROR", "401", "403":
		return fault.Denied, true
	case "NOT_FOUND", "404":
		return fault.NotFound, true
	case "CONFLICT", "CONSTRAINT_VIOLATION", "ALREADY_EXISTS", "409":
		return fault.Conflict, true
	case "RATE_LIMITED", "TOO_MANY_REQUESTS", "THROTTLED", "429":
		return fault.Exhausted, true
	case "TIMEOUT", "GATEWAY_TIMEOUT", "504":
		return fault.Timeout, true
	case "SERVICE_UNAVAILABLE", "UNAVAILABLE", "503":
		return fault.Unavailable, true
	case "INTERNAL_SERVER_ERROR", "UNEXPECTED", "500":
		return fault.Internal, true
	}
	return 0, false
}

// short is other people's text on one line, not too long.
func short(text string) string {
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
}
