// Package telemetry is what an instance tells about itself: counts and times of
// all that it does, for Prometheus.
//
// The runtime makes one [Metrics] and hands it down as a value. Whoever does
// something that is worth counting asks it once for a [Calls] and counts there;
// what only matters when somebody looks is read at that moment, by a [Gauge].
//
// It promises that the names are Dapr's where Dapr has one, so that dashboards go
// on working; that the number of series is bounded, whatever names callers send;
// that nothing from a payload, a header or a secret becomes a label; and that a nil
// value counts nothing and costs nothing.
package telemetry
