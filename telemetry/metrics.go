package telemetry

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// Options are the settings of [Metrics].
type Options struct {
	// AppID and Namespace are labels of every series of Dapr's.
	AppID, Namespace string
}

// Settings are what a configuration says about metrics.
type Settings struct {
	// Buckets are the upper bounds of times, in milliseconds and ascending; none:
	// the usual ones.
	Buckets []float64
	// ExcludeVerbs leaves the methods of HTTP out.
	ExcludeVerbs bool
	// ErrorCodes counts the codes of errors that the API answers.
	ErrorCodes bool
	// Rules change the values of labels. The first that matches counts.
	Rules []Rule
}

// Rule makes Value of the values of a label of a metric that match.
type Rule struct {
	Metric, Label string
	Match         func(value string) bool
	Value         string
}

// Metrics counts what one instance does. It is safe for concurrent use; a nil one
// counts nothing.
type Metrics struct {
	o        Options
	settings Settings
	off      bool // nothing is counted
	registry *prometheus.Registry
	families map[Family]*family

	mu    sync.RWMutex
	calls map[counted]*Calls // kept, so that a reload begins no new bound of words

	http     *requests
	grpc     *requests
	between  between
	toApp    toApp
	policies policies
	errors   *tally // nil: they are not counted
	opened   *tally
	failed   *tally
}

// NewMetrics makes a registry with the metrics of the process in it.
func NewMetrics(o Options) *Metrics {
	m := &Metrics{o: o, registry: prometheus.NewRegistry(), families: map[Family]*family{}, calls: map[counted]*Calls{}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.make()
	return m
}

func (m *Metrics) make() {
	for f := range familyNames() {
		m.families[f] = newFamily(m, f)
	}
	m.http, m.grpc, m.between = newHTTPRequests(m), newGRPCCalls(m), newBetween(m)
	m.toApp, m.policies = newToApp(m), newPolicies(m)
	m.opened = newTally(m, "dapr_runtime_component_init_total", "Number of components that were opened.", "component")
	m.failed = newTally(m, "dapr_runtime_component_init_fail_total", "Number of times that a component was not opened.", "component", "reason", "componentName")
	m.errors = nil
	if m.settings.ErrorCodes {
		m.errors = newTally(m, "dapr_error_code_total", "Number of answers with a code of an error.", "error_code", "category")
	}
}

// tallies are all there are.
func (m *Metrics) tallies() []*tally {
	all := append(append(m.between.all(), m.toApp.all()...), m.opened, m.failed, m.policies.loaded, m.policies.applied, m.policies.acted)
	if m.errors != nil {
		all = append(all, m.errors)
	}
	return all
}

// ErrorCode counts an answer of the API with a code, where the settings ask for it.
func (m *Metrics) ErrorCode(code, category string) {
	if m != nil && !m.off && m.errors != nil {
		m.errors.add(values{code, category})
	}
}

// Opened counts that a component of a type was opened, or failed to.
func (m *Metrics) Opened(kind, name string, err error) {
	switch {
	case m == nil || m.off:
	case err != nil:
		m.failed.add(values{kind, "init", name})
	default:
		m.opened.add(values{kind})
	}
}

// Apply takes over settings. It comes before anything is counted.
func (m *Metrics) Apply(s Settings) {
	if m == nil {
		return
	}
	for _, f := range m.families {
		m.registry.Unregister(f.count)
		m.registry.Unregister(f.times)
	}
	m.http.unregister(m.registry)
	m.grpc.unregister(m.registry)
	for _, t := range m.tallies() {
		t.unregister(m.registry)
	}
	m.settings, m.calls = s, map[counted]*Calls{}
	m.make()
}

// Stop has nothing counted from now on. It comes before anything is.
func (m *Metrics) Stop() {
	if m != nil {
		m.off = true
	}
}

// ruled returns the values of labels as the rules have them; several metrics are
// counted under the same values, and the rules of any of them hold.
func (m *Metrics) ruled(metrics, labels, values []string) []string {
	for i, label := range labels {
		for _, r := range m.settings.Rules {
			if r.Label == label && slices.Contains(metrics, r.Metric) && r.Match(values[i]) {
				values[i] = r.Value
				break
			}
		}
	}
	return values
}

// Scrapes at the same time beyond this one are refused, and one may take so long.
const (
	scrapes       = 4
	scrapeTimeout = 10 * time.Second
)

// Handler answers scrapes, at /metrics and at / as Dapr does. Who asks for OpenMetrics
// gets that, with the ids of traces as exemplars of times, and the same names.
func (m *Metrics) Handler() http.Handler {
	o := promhttp.HandlerOpts{MaxRequestsInFlight: scrapes, Timeout: scrapeTimeout}
	plain := promhttp.HandlerFor(m.registry, o)
	o.EnableOpenMetrics = true
	open := promhttp.HandlerFor(sameNames{m.registry}, o)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...).FormatType() == expfmt.TypeOpenMetrics {
			open.ServeHTTP(w, r)
			return
		}
		plain.ServeHTTP(w, r)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /{$}", h)
	return mux
}

// buckets are the upper bounds of times, in milliseconds: Dapr's, and three below
// one millisecond, where most of them are.
func (m *Metrics) buckets() []float64 {
	if len(m.settings.Buckets) > 0 {
		return m.settings.Buckets
	}
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
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
