package trace

// The headers of W3C, as net/http spells them and as gRPC does.
const (
	parentHeader = "Traceparent"
	stateHeader  = "Tracestate"
	parentKey    = "traceparent"
	stateKey     = "tracestate"
)

// FromHeader returns the context in the headers of a request.
func FromHeader(h map[string][]string) Context {
	return Context{Parent: one(h[parentHeader]), State: one(h[stateHeader])}
}

// FromMetadata returns that of a call over gRPC.
func FromMetadata(md map[string][]string) Context {
	return Context{Parent: one(md[parentKey]), State: one(md[stateKey])}
}

// one returns the only value, since a context that is said twice is none.
func one(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// Header makes the headers of a request carry the context; an empty one leaves them
// as they are.
func (c Context) Header(h map[string][]string) {
	c.put(h, parentHeader, stateHeader, "Grpc-Trace-Bin")
}

// Metadata is Header for a call over gRPC.
func (c Context) Metadata(md map[string][]string) {
	c.put(md, parentKey, stateKey, "grpc-trace-bin")
}

// put writes the context under two names; a third one, of an older form, would say
// something else.
func (c Context) put(m map[string][]string, parent, state, old string) {
	if c.Parent == "" || one(m[parent]) == c.Parent {
		return
	}
	m[parent] = []string{c.Parent}
	delete(m, old)
	if delete(m, state); c.State != "" {
		m[state] = []string{c.State}
	}
}
