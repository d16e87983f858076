package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// Metric is spec.metric, or spec.metrics as older files call it. The zero value says
// nothing.
type Metric struct {
	// Enabled tells whether anything is counted; nil: it is not said.
	Enabled *bool
	// Buckets are the upper bounds of times, in milliseconds and ascending; none:
	// the usual ones.
	Buckets []float64
	// ExcludeVerbs leaves the method of HTTP out of labels.
	ExcludeVerbs bool
	// ErrorCodes counts the codes of the API's errors.
	ErrorCodes bool
	// Rules change the values of labels, in their order.
	Rules []MetricRule
}

// MetricRule changes the values of one label of one metric.
type MetricRule struct {
	// Metric is its whole name.
	Metric, Label string
	// Pattern is what a value must match, somewhere in it, to become Value.
	Pattern *regexp.Regexp
	Value   string
}

// The names of spec.metric; the older one is read when the other is not there.
const (
	metricField    = "metric"
	oldMetricField = "metrics"
)

// metric reads spec.metric. What has no effect here is named.
func (r *reader) metric(spec *fields) (m Metric, given bool) {
	name := metricField
	if spec.get(name) == nil && spec.get(oldMetricField) != nil {
		name = oldMetricField
	}
	spec.skip(oldMetricField)
	f := spec.table(name)
	if f.n == nil {
		return m, false
	}
	if f.get("enabled") != nil {
		m.Enabled = new(f.bool("enabled"))
	}
	m.Buckets = r.buckets(f, "latencyDistributionBuckets")
	http := f.table("http")
	m.ExcludeVerbs = http.bool("excludeVerbs")
	for _, unused := range http.skip("increasedCardinality", "pathMatching") {
		r.lenient(http.place(unused), "", "%s has no effect: a path in a label is always the pattern of an API", http.name(unused))
	}
	http.done()
	m.ErrorCodes = f.bool("recordErrorCodes")
	for i, n := range f.items("rules") {
		m.Rules = append(m.Rules, r.metricRule(n, fmt.Sprintf("%s[%d]", f.name("rules"), i))...)
	}
	f.done()
	return m, true
}

// buckets reads a list of numbers that grow.
func (r *reader) buckets(f *fields, name string) (list []float64) {
	for i, n := range f.items(name) {
		v, err := strconv.ParseFloat(n.text, 64)
		if n.kind != scalarNode || err != nil || v <= 0 || v-v != 0 || len(list) > 0 && v <= list[len(list)-1] {
			r.hard(n.at, "", "%s[%d] is %s, want a number of milliseconds that is above the one before it", f.name(name), i, n.what())
			return nil
		}
		list = append(list, v)
	}
	return list
}

// metricRule reads one entry of the rules, which may have several labels and
// patterns. Those of a label count in the order of their values, since a mapping has
// none.
func (r *reader) metricRule(n *node, path string) (rules []MetricRule) {
	f := r.table(n, path, n.at, false)
	metric := f.need("name")
	for i, l := range f.items("labels") {
		label := r.table(l, fmt.Sprintf("%s.labels[%d]", path, i), l.at, false)
		name := label.need("name")
		patterns, places := label.values("regex")
		values := make([]string, 0, len(patterns))
		for value := range patterns {
			values = append(values, value)
		}
		slices.Sort(values)
		for _, value := range values {
			re, err := regexp.Compile(patterns[value])
			if err != nil {
				r.hard(places[value], "", "%s.regex of %q: %v", label.here(), cut(value, 80), err)
				continue
			}
			rules = append(rules, MetricRule{metric, name, re, value})
		}
		label.done()
	}
	f.done()
	return rules
}
