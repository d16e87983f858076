package telemetry

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// sameNames keeps the names of counters in OpenMetrics, which would put _total behind
// those of Dapr's: what is of no known type has none added. A dashboard asks for the
// same names then, whichever format the server that scrapes has chosen.
type sameNames struct{ prometheus.Gatherer }

// Gather implements prometheus.Gatherer.
func (g sameNames) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.Gatherer.Gather()
	for _, f := range families {
		if f.GetType() != dto.MetricType_COUNTER || strings.HasSuffix(f.GetName(), "_total") {
			continue
		}
		f.Type = dto.MetricType_UNTYPED.Enum()
		for _, m := range f.Metric {
			m.Untyped = &dto.Untyped{Value: m.Counter.Value}
			m.Counter = nil
		}
	}
	return families, err
}
