package api

import (
	"maps"
	"strings"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// The bounds of trace headers, from the W3C recommendations.
const (
	maxTraceState   = 512
	maxStateMembers = 32
	maxBaggage      = 8192
	maxBaggageItems = 180
)

// Trace is the W3C trace context of a request, and its baggage; all parts may be
// empty.
type Trace struct{ Parent, State, Baggage string }

// TraceHeaders are the W3C headers of a request with all their values.
type TraceHeaders struct{ Parent, State, Baggage []string }

// Trace reads the headers. A trace context that is wrong is left out, as the
// recommendation says, and never grows; a wrong baggage is an error.
func (h TraceHeaders) Trace() (Trace, error) {
	var t Trace
	if len(h.Baggage) > 0 {
		if err := checkBaggage(h.Baggage); err != nil {
			return Trace{}, err
		}
		t.Baggage = strings.Join(h.Baggage, ",")
	}
	if len(h.Parent) != 1 || !validTraceParent(h.Parent[0]) {
		return t, nil
	}
	t.Parent = h.Parent[0]
	switch len(h.State) {
	case 0:
	case 1:
		t.State = h.State[0]
	default:
		t.State = strings.Join(h.State, ",")
	}
	if len(t.State) > maxTraceState || strings.Count(t.State, ",") >= maxStateMembers {
		t.State = ""
	}
	return t, nil
}

// addTo returns metadata with the trace context and the baggage; what the caller
// gave wins.
func (t Trace) addTo(metadata map[string]string) map[string]string {
	if t.Parent == "" {
		return t.Carry(metadata)
	}
	m := map[string]string{"traceparent": t.Parent}
	if t.State != "" {
		m["tracestate"] = t.State
	}
	if t.Baggage != "" {
		m["baggage"] = t.Baggage
	}
	maps.Copy(m, metadata)
	return m
}

// Carry returns metadata with the baggage, which is beside an event and never in
// it; what the caller gave wins.
func (t Trace) Carry(metadata map[string]string) map[string]string {
	if t.Baggage == "" {
		return metadata
	}
	m := map[string]string{"baggage": t.Baggage}
	maps.Copy(m, metadata)
	return m
}

// Context is the trace without the baggage.
func (t Trace) Context() trace.Context { return trace.Context{Parent: t.Parent, State: t.State} }

// In returns the trace with another context, that of a span.
func (t Trace) In(c trace.Context) Trace {
	t.Parent, t.State = c.Parent, c.State
	return t
}

// validTraceParent bounds what cloudevents takes, whose later versions may have
// more behind.
func validTraceParent(s string) bool {
	return len(s) <= maxTraceState && cloudevents.ValidTraceParent(s)
}

// checkBaggage checks the form key=value;properties, comma separated.
func checkBaggage(values []string) error {
	size, items := 0, 0
	for _, v := range values {
		if size += len(v); size > maxBaggage {
			return Errorf(BadRequest, "read header baggage: it has more than %d bytes", maxBaggage)
		}
		if strings.TrimSpace(v) == "" {
			continue
		}
		for member := range strings.SplitSeq(v, ",") {
			if items++; items > maxBaggageItems {
				return Errorf(BadRequest, "read header baggage: it has more than %d members", maxBaggageItems)
			}
			if !validMember(member) {
				return Errorf(BadRequest, "read header baggage: member %d is not key=value", items)
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
