package http

import (
	"net/http"
	"strings"

	"github.com/penstock-io/penstock/api"
)

// The bounds of trace headers, from the W3C recommendations.
const (
	traceParentLen  = 55
	maxTraceState   = 512
	maxStateMembers = 32
	maxBaggage      = 8192
	maxBaggageItems = 180
)

// trace reads the W3C headers. A trace context that is wrong is left out, as
// the recommendation says, and never grows; a wrong baggage is an error.
func trace(r *http.Request) (api.Trace, error) {
	if values := r.Header["Baggage"]; len(values) > 0 {
		if err := checkBaggage(values); err != nil {
			return api.Trace{}, err
		}
	}
	parents := r.Header["Traceparent"]
	if len(parents) != 1 || !validTraceParent(parents[0]) {
		return api.Trace{}, nil
	}
	t := api.Trace{Parent: parents[0]}
	switch states := r.Header["Tracestate"]; len(states) {
	case 0:
	case 1:
		t.State = states[0]
	default:
		t.State = strings.Join(states, ",")
	}
	if len(t.State) > maxTraceState || strings.Count(t.State, ",") >= maxStateMembers {
		t.State = ""
	}
	return t, nil
}

// validTraceParent checks "00-<32 hex>-<16 hex>-<2 hex>"; later versions may
// have more behind.
func validTraceParent(s string) bool {
	if len(s) < traceParentLen || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version := s[:2]
	if version == "ff" || len(s) > traceParentLen && (version == "00" || s[traceParentLen] != '-') || len(s) > maxTraceState {
		return false
	}
	trace, span := s[3:35], s[36:52]
	return isHex(version) && isHex(trace) && isHex(span) && isHex(s[53:55]) &&
		strings.Trim(trace, "0") != "" && strings.Trim(span, "0") != ""
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// checkBaggage checks the form key=value;properties, comma separated.
func checkBaggage(values []string) error {
	size, items := 0, 0
	for _, v := range values {
		if size += len(v); size > maxBaggage {
			return api.Errorf(api.BadRequest, "read header baggage: it has more than %d bytes", maxBaggage)
		}
		if strings.TrimSpace(v) == "" {
			continue
		}
		for member := range strings.SplitSeq(v, ",") {
			if items++; items > maxBaggageItems {
				return api.Errorf(api.BadRequest, "read header baggage: it has more than %d members", maxBaggageItems)
			}
			if !validMember(member) {
				return api.Errorf(api.BadRequest, "read header baggage: member %d is not key=value", items)
			}
		}
	}
	return nil
}

func validMember(member string) bool {
	first := true
	for part := range strings.SplitSeq(member, ";") {
		key, value, ok := strings.Cut(part, "=")
		if !ok && first || !isToken(strings.Trim(key, " \t")) || !isBaggageValue(strings.Trim(value, " \t")) {
			return false
		}
		first = false
	}
	return true
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func isBaggageValue(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || c == '"' || c == ',' || c == ';' || c == '\\' {
			return false
		}
	}
	return true
}
