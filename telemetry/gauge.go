package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Gauge is a metric that is read when somebody looks.
type Gauge struct {
	// Name is the whole name, Help one sentence.
	Name, Help string
	// Labels are the names of what Read gives with each value.
	Labels []string
	// Counter tells that values only grow.
	Counter bool
}

// Sample is one value of a [Gauge].
type Sample struct {
	Gauge  int // which of those that were given to Read
	Value  float64
	Labels []string // as many as the Gauge has
}

// Read registers metrics whose values read gives at each scrape. It must be called
// once for a name; read may be called from several goroutines and must not block.
func (m *Metrics) Read(gauges []Gauge, read func() []Sample) {
	if m == nil {
		return
	}
	r := &reader{read: read, off: func() bool { return m.off }}
	for _, g := range gauges {
		kind := prometheus.GaugeValue
		if g.Counter {
			kind = prometheus.CounterValue
		}
		r.kinds = append(r.kinds, kind)
		r.about = append(r.about, prometheus.NewDesc(g.Name, g.Help, g.Labels, m.labels()))
	}
	m.registry.MustRegister(r)
}

// reader implements prometheus.Collector.
type reader struct {
	about []*prometheus.Desc
	kinds []prometheus.ValueType
	read  func() []Sample
	off   func() bool
}

// Describe implements prometheus.Collector.
func (r *reader) Describe(out chan<- *prometheus.Desc) {
	for _, d := range r.about {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (r *reader) Collect(out chan<- prometheus.Metric) {
	if r.off() {
		return
	}
	for _, s := range r.read() {
		out <- prometheus.MustNewConstMetric(r.about[s.Gauge], r.kinds[s.Gauge], s.Value, s.Labels...)
	}
}
