package telemetry

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are the settings of [Metrics].
type Options struct {
	// AppID and Namespace are labels of every series of Dapr's.
	AppID, Namespace string
}

// Metrics counts what one instance does. It is safe for concurrent use; a nil one
// counts nothing.
type Metrics struct {
	o        Options
	registry *prometheus.Registry
	families map[Family]*family

	mu    sync.RWMutex
	calls map[counted]*Calls // kept, so that a reload begins no new bound of words

	http *requests
	grpc *requests
}

// NewMetrics makes a registry with the metrics of the process in it.
func NewMetrics(o Options) *Metrics {
	m := &Metrics{o: o, registry: prometheus.NewRegistry(), families: map[Family]*family{}, calls: map[counted]*Calls{}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for f := range familyNames() {
		m.families[f] = newFamily(m, f)
	}
	m.http, m.grpc = newHTTPRequests(m), newGRPCCalls(m)
	return m
}

// Scrapes at the same time beyond this one are refused, and one may take so long.
const (
	scrapes       = 4
	scrapeTimeout = 10 * time.Second
)

// Handler answers scrapes, at /metrics and at / as Dapr does.
func (m *Metrics) Handler() http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapes, Timeout: scrapeTimeout})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /{$}", h)
	return mux
}

// buckets are the upper bounds of times, in milliseconds: Dapr's, and three below
// one millisecond, where most of them are.
func buckets() []float64 {
	return []float64{
		0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650, 800,
		1000, 2000, 5000, 10000, 20000, 50000, 100000,
	}
}

// labels are those that every series has.
func (m *Metrics) labels() prometheus.Labels {
	return prometheus.Labels{"app_id": m.o.AppID}
}

// milliseconds since began.
func milliseconds(began time.Time) float64 {
	return float64(time.Since(began)) / float64(time.Millisecond)
}
