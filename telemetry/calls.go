package telemetry

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Family is what kind of call of a component is counted.
type Family int

// The families. What a call's word is, is in brackets.
const (
	Publish       Family = iota // events that were published [topic]
	Deliver                     // events of a topic that came to an end [topic]
	Input                       // events of input bindings that came to an end
	Output                      // calls of output bindings [operation]
	State                       // calls of state stores [operation]
	Secret                      // calls of secret stores [operation]
	Configuration               // calls of configuration stores [operation]
	Crypto                      // calls of crypto components [operation]
)

// familyNames are the middle parts of Dapr's names, and what the word of a call is
// there.
func familyNames() map[Family][2]string {
	return map[Family][2]string{
		Publish: {"pubsub_egress", "topic"}, Deliver: {"pubsub_ingress", "topic"}, Input: {"input_binding", ""}, Output: {"output_binding", "operation"},
		State: {"state", "operation"}, Secret: {"secret", "operation"}, Configuration: {"configuration", "operation"}, Crypto: {"crypto", "operation"},
	}
}

// Bounds of labels. What comes after so many words of one component is counted as
// one, [Others].
const (
	words = 200
	// Others stands for the words of a component that has too many.
	Others = "(others)"
)

// family are the two metrics of one kind of call.
type family struct {
	count   *prometheus.CounterVec
	times   *prometheus.HistogramVec
	word    string // the label; empty: none
	outcome bool   // ends with an outcome instead of success or not
	space   string

	metrics       *Metrics
	names, labels []string
}

func newFamily(m *Metrics, f Family) *family {
	name := familyNames()[f]
	out := &family{word: name[1], outcome: f == Deliver, space: m.o.Namespace, metrics: m}
	labels := []string{"component", "namespace"}
	if out.word != "" {
		labels = append(labels, out.word)
	}
	if out.outcome {
		labels = append(labels, "process_status", "status")
	} else {
		labels = append(labels, "success")
	}
	out.count = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dapr_component_" + name[0] + "_count", Help: "Number of calls that came to an end.", ConstLabels: m.labels(),
	}, labels)
	out.times = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dapr_component_" + name[0] + "_latencies", Help: "Time of a call, in milliseconds.", ConstLabels: m.labels(), Buckets: m.buckets(),
	}, labels)
	m.registry.MustRegister(out.count, out.times)
	out.labels, out.names = labels, []string{"dapr_component_" + name[0] + "_count", "dapr_component_" + name[0] + "_latencies"}
	return out
}

// Calls counts the calls of one component. A nil one counts nothing.
type Calls struct {
	family    *family
	component string

	mu     sync.RWMutex
	series map[series]bound
	words  map[string]bool
}

// series is one line of labels: a word and how calls ended.
type series struct{ word, end string }

type bound struct {
	count prometheus.Counter
	times prometheus.Observer
}

// counted is one component in one family.
type counted struct {
	family    Family
	component string
}

// Calls returns what counts the calls of a component, the same each time.
func (m *Metrics) Calls(f Family, component string) *Calls {
	if m == nil || m.off {
		return nil
	}
	of := counted{f, component}
	m.mu.RLock()
	c, ok := m.calls[of]
	m.mu.RUnlock()
	if ok {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok = m.calls[of]; !ok {
		c = &Calls{family: m.families[f], component: component, series: map[series]bound{}, words: map[string]bool{}}
		m.calls[of] = c
	}
	return c
}

// Begin is the time from which a call is measured; the zero time when nothing
// counts.
func (c *Calls) Begin() time.Time {
	if c == nil {
		return time.Time{}
	}
	return time.Now()
}

// Done counts a call that ended with err, nil for success.
func (c *Calls) Done(word string, began time.Time, err error) {
	c.DoneIn("", word, began, err)
}

// DoneIn is Done of a call in a recorded trace, whose id goes beside the time as an
// exemplar; without one it is Done.
func (c *Calls) DoneIn(trace, word string, began time.Time, err error) {
	if c != nil {
		c.EndIn(trace, word, time.Since(began), strconv.FormatBool(err == nil))
	}
}

// End counts a call that ended as the word end says; for [Deliver] that is success,
// retry, drop or leave, for all others true or false.
func (c *Calls) End(word string, took time.Duration, end string) { c.EndIn("", word, took, end) }

// EndIn is End of a call in a recorded trace, as [Calls.DoneIn] is Done.
func (c *Calls) EndIn(trace, word string, took time.Duration, end string) {
	if c == nil {
		return
	}
	b := c.bound(series{word, end})
	b.count.Inc()
	ms := milliseconds(took)
	if trace == "" {
		b.times.Observe(ms)
		return
	}
	b.times.(prometheus.ExemplarObserver).ObserveWithExemplar(ms, prometheus.Labels{"trace_id": trace}) // histograms are
}

func (c *Calls) bound(s series) bound {
	c.mu.RLock()
	b, ok := c.series[s]
	c.mu.RUnlock()
	if ok {
		return b
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.words[s.word] && len(c.words) >= words {
		s.word = Others
	}
	c.words[s.word] = true
	if b, ok = c.series[s]; !ok {
		b = c.family.bind(c.component, s)
		c.series[s] = b
	}
	return b
}

func (f *family) bind(component string, s series) bound {
	values := []string{component, f.space}
	if f.word != "" {
		values = append(values, s.word)
	}
	if values = append(values, s.end); f.outcome {
		values = append(values, s.end)
	}
	values = f.metrics.ruled(f.names, f.labels, values)
	return bound{f.count.WithLabelValues(values...), f.times.WithLabelValues(values...)}
}
