package trace

import (
	"encoding/binary"
	"math"

	"go.opentelemetry.io/otel/trace"
)

// sampler decides which traces are recorded, before anything is made for them.
type sampler struct {
	// alone does not look at what the one before decided.
	alone bool
	// below is the bound of what the id of a trace says; the same one for all who
	// sample at the same rate.
	below uint64
}

// newSampler makes one that records that share of traces, from 0 to 1.
func newSampler(rate float64, alone bool) sampler {
	switch {
	case rate >= 1:
		return sampler{alone, math.MaxUint64}
	case !(rate > 0): // so that no number counts as none
		return sampler{alone, 0}
	}
	return sampler{alone, uint64(rate * (1 << 63))}
}

// root decides about a trace that begins here.
func (s sampler) root(id trace.TraceID) bool {
	return binary.BigEndian.Uint64(id[8:])>>1 < s.below
}

// follow decides about a trace that came in.
func (s sampler) follow(parent trace.SpanContext) bool {
	if s.alone {
		return s.root(parent.TraceID())
	}
	return parent.IsSampled()
}
