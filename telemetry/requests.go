package telemetry

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requests are the metrics of one server of the API.
type requests struct {
	counts []*prometheus.CounterVec
	times  *prometheus.HistogramVec

	metrics       *Metrics
	names, labels []string

	mu     sync.RWMutex
	series map[request]boundRequest
}

// request is one line of labels: of HTTP a verb, a pattern and a status; of gRPC a
// method and a status.
type request struct {
	verb, path string
	status     int
}

type boundRequest struct {
	counts []prometheus.Counter
	times  prometheus.Observer
}

func newRequests(m *Metrics, names, labels []string, times string) *requests {
	r := &requests{metrics: m, names: append(slices.Clone(names), times), labels: labels, series: map[request]boundRequest{}}
	for _, name := range names {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "Number of requests that were answered.", ConstLabels: m.labels()}, labels)
		r.counts = append(r.counts, c)
		m.registry.MustRegister(c)
	}
	r.times = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: times, Help: "Time of a request, in milliseconds.", ConstLabels: m.labels(), Buckets: m.buckets(),
	}, labels)
	m.registry.MustRegister(r.times)
	return r
}

func (r *requests) unregister(from *prometheus.Registry) {
	for _, c := range r.counts {
		from.Unregister(c)
	}
	from.Unregister(r.times)
}

func newHTTPRequests(m *Metrics) *requests {
	return newRequests(m, []string{"dapr_http_server_request_count", "dapr_http_server_response_count"}, []string{"method", "path", "status"},
		"dapr_http_server_latency")
}

func newGRPCCalls(m *Metrics) *requests {
	return newRequests(m, []string{"dapr_grpc_io_server_completed_rpcs"}, []string{"grpc_server_method", "grpc_server_status"},
		"dapr_grpc_io_server_server_latency")
}

// count counts one that has ended; values are its labels, asked for once.
func (r *requests) count(q request, began time.Time, values func() []string) {
	r.mu.RLock()
	b, ok := r.series[q]
	r.mu.RUnlock()
	if !ok {
		b = r.bind(q, values())
	}
	for _, c := range b.counts {
		c.Inc()
	}
	b.times.Observe(milliseconds(time.Since(began)))
}

func (r *requests) bind(q request, values []string) boundRequest {
	values = r.metrics.ruled(r.names, r.labels, values)
	b := boundRequest{times: r.times.WithLabelValues(values...)}
	for _, c := range r.counts {
		b.counts = append(b.counts, c.WithLabelValues(values...))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.series[q] = b
	return b
}

// HTTPRequest counts a request of the HTTP API that began then and was answered
// with status. Path is the pattern that it matched, never what was sent.
func (m *Metrics) HTTPRequest(verb, path string, status int, began time.Time) {
	if m == nil || m.off {
		return
	}
	switch {
	case m.settings.ExcludeVerbs:
		verb = ""
	case !known(verb):
		verb = Others
	}
	m.http.count(request{verb, path, status}, began, func() []string { return []string{verb, path, strconv.Itoa(status)} })
}

// known tells whether a verb may be a label.
func known(verb string) bool {
	switch verb {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodPatch, http.MethodOptions:
		return true
	}
	return false
}

// GRPCCall counts a call of the gRPC API that began then. Method is one that is
// served, never what was sent; status is a number of gRPC's, and word its name.
func (m *Metrics) GRPCCall(method string, status int, word string, began time.Time) {
	if m == nil || m.off {
		return
	}
	m.grpc.count(request{"", method, status}, began, func() []string { return []string{method, word} })
}
