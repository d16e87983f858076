package telemetry

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requestVectors are the metrics of the API's servers.
type requestVectors struct {
	httpStarted, httpEnded, grpcEnded *prometheus.CounterVec
	httpTimes, grpcTimes              *prometheus.HistogramVec
}

func newRequestVectors(m *Metrics) *requestVectors {
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: m.labels()}, labels)
		m.registry.MustRegister(c)
		return c
	}
	times := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, ConstLabels: m.labels(), Buckets: buckets()}, labels)
		m.registry.MustRegister(h)
		return h
	}
	return &requestVectors{
		httpStarted: count("dapr_http_server_request_count", "Number of HTTP requests.", "method", "path", "status"),
		httpEnded:   count("dapr_http_server_response_count", "Number of HTTP requests that were answered.", "method", "path", "status"),
		httpTimes:   times("dapr_http_server_latency", "Time of an HTTP request, in milliseconds.", "method", "path", "status"),
		grpcEnded:   count("dapr_grpc_io_server_completed_rpcs", "Number of gRPC calls that ended.", "grpc_server_method", "grpc_server_status"),
		grpcTimes:   times("dapr_grpc_io_server_server_latency", "Time of a gRPC call, in milliseconds.", "grpc_server_method", "grpc_server_status"),
	}
}

// HTTPRequest counts a request of the HTTP API that began then and was answered
// with status. Path is the pattern that it matched, never what was sent.
func (m *Metrics) HTTPRequest(method, path string, status int, began time.Time) {
	if m == nil {
		return
	}
	if !slices.Contains(verbs(), method) {
		method = Others
	}
	code := strconv.Itoa(status)
	m.requests.httpStarted.WithLabelValues(method, path, code).Inc()
	m.requests.httpEnded.WithLabelValues(method, path, code).Inc()
	m.requests.httpTimes.WithLabelValues(method, path, code).Observe(milliseconds(began))
}

// verbs are those that a label may be.
func verbs() []string {
	return []string{
		http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodPatch, http.MethodOptions,
	}
}

// GRPCCall counts a call of the gRPC API that began then and ended with a status
// such as OK. Method is one that is served, never what was sent.
func (m *Metrics) GRPCCall(method, status string, began time.Time) {
	if m == nil {
		return
	}
	m.requests.grpcEnded.WithLabelValues(method, status).Inc()
	m.requests.grpcTimes.WithLabelValues(method, status).Observe(milliseconds(began))
}
