package telemetry

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// mostSeries is how many series a tally has. What comes after them is counted as
// [Others] in its first label.
const mostSeries = 1000

// values are those of the labels of one series.
type values [6]string

// tally is a counter with labels, some of which may be what others say.
type tally struct {
	metrics *Metrics
	name    string
	labels  []string
	vec     *prometheus.CounterVec

	// times has the first of the labels only; nil: there are none.
	times      *prometheus.HistogramVec
	timesName  string
	timeLabels []string

	mu     sync.RWMutex
	series map[values]bound
}

func newTally(m *Metrics, name, help string, labels ...string) *tally {
	t := &tally{metrics: m, name: name, labels: labels, series: map[values]bound{}}
	t.vec = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: m.labels()}, labels)
	m.registry.MustRegister(t.vec)
	return t
}

// timed adds times, in milliseconds, under the first n labels.
func (t *tally) timed(name, help string, n int) *tally {
	t.timesName, t.timeLabels = name, t.labels[:n]
	t.times = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, ConstLabels: t.metrics.labels(), Buckets: t.metrics.buckets(),
	}, t.timeLabels)
	t.metrics.registry.MustRegister(t.times)
	return t
}

// add counts one and returns what takes its time.
func (t *tally) add(v values) prometheus.Observer {
	t.mu.RLock()
	b, ok := t.series[v]
	t.mu.RUnlock()
	if !ok {
		b = t.bind(v)
	}
	b.count.Inc()
	return b.times
}

func (t *tally) bind(v values) bound {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.series) >= mostSeries {
		v[0] = Others
	}
	if b, ok := t.series[v]; ok {
		return b
	}
	b := bound{count: t.vec.WithLabelValues(t.metrics.ruled([]string{t.name}, t.labels, slices.Clone(v[:len(t.labels)]))...)}
	if t.times != nil {
		b.times = t.times.WithLabelValues(t.metrics.ruled([]string{t.timesName}, t.timeLabels, slices.Clone(v[:len(t.timeLabels)]))...)
	}
	t.series[v] = b
	return b
}

func (t *tally) unregister(from *prometheus.Registry) {
	from.Unregister(t.vec)
	if t.times != nil {
		from.Unregister(t.times)
	}
}
