package canary

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// collector takes spans as Zipkin and as OTLP over HTTP does, and keeps them.
type collector struct {
	server *httptest.Server
	mu     sync.Mutex
	bodies map[string]*bytes.Buffer // by path
}

func newCollector(t *testing.T) *collector {
	c := &collector{bodies: map[string]*bytes.Buffer{}}
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

// address is where it listens; a nil one is one that is away.
func (c *collector) address() string {
	if c == nil {
		return "127.0.0.1:1"
	}
	return c.server.Listener.Addr().String()
}

// ServeHTTP implements http.Handler.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bodies[r.URL.Path] == nil {
		c.bodies[r.URL.Path] = &bytes.Buffer{}
	}
	c.bodies[r.URL.Path].Write(append(body, '\n'))
}

// got is all that came to a path.
func (c *collector) got(path string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.bodies[path]; b != nil {
		return b.String()
	}
	return ""
}

// otlp is the endpoint of OTLP: the collector, or one with a password, which is
// refused with a line in the log.
func (in *instance) otlp() string {
	if in.spans == nil {
		return "http://user:" + in.c.plant("the endpoint of OTLP") + "@127.0.0.1:1"
	}
	return "http://" + in.spans.address()
}

// traced looks through what the collector got and the spans on the standard output,
// which are lines among those of the log. The attempts that failed must be among it, or nothing
// would be shown.
func (in *instance) traced(t *testing.T) {
	t.Helper()
	var lines strings.Builder
	for line := range strings.Lines(in.side.Log()) {
		if strings.HasPrefix(line, `{"traceId"`) {
			lines.WriteString(line)
		}
	}
	texts := map[string]string{"the spans on the standard output": lines.String()}
	if in.spans != nil {
		texts["the spans of Zipkin"] = in.spans.got("/api/v2/spans")
		texts["the spans of OTLP"] = in.spans.got("/v1/traces")
	}
	for where, text := range texts {
		for _, name := range []string{"publish orders", "pubsub/orders", "/v1.0/state/{store}/{key}", "error.type", "penstock.attempt"} {
			if !strings.Contains(text, name) {
				t.Errorf("%s have nothing of %s", where, name)
			}
		}
		in.c.search(t, where, text)
	}
}
