package runtime

import (
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/telemetry"
)

// setMetrics makes the metrics what spec.metric says, before anything is counted.
// When they are off, their port is closed.
func (r *Runtime) setMetrics(c config.Metric) {
	if r.metrics == nil {
		return
	}
	if c.Enabled != nil && !*c.Enabled && !r.o.CountAnyway {
		r.log.Info("No metrics, as spec.metric.enabled says")
		r.metrics.Stop()
		for _, l := range r.o.Scrapes {
			_ = l.Close() // nobody has used it
		}
		r.o.Scrapes = nil
		return
	}
	s := telemetry.Settings{Buckets: c.Buckets, ExcludeVerbs: c.ExcludeVerbs, ErrorCodes: c.ErrorCodes}
	for _, rule := range c.Rules {
		s.Rules = append(s.Rules, telemetry.Rule{Metric: rule.Metric, Label: rule.Label, Match: rule.Pattern.MatchString, Value: rule.Value})
	}
	r.metrics.Apply(s)
}

// beforeCalls takes over what must hold before the first request comes in.
func (r *Runtime) beforeCalls(c config.Configuration) {
	r.setMetrics(c.Metric)
	r.limitAPI(c)
}
