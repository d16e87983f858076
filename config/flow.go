package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Flow is how the events of a route flow, where it is other than the default.
// A Subscription document has it as fields of its spec; a subscription that the
// app returns, or opens as a stream, as metadata; see [Flow.Metadata].
type Flow struct {
	// Concurrency is how many events may be under way at once; zero is the
	// default.
	Concurrency int
	// MaxInFlight is how many events may be taken and not settled, those that
	// wait for a retry included; zero is the default, four for each of
	// Concurrency and at least 64.
	MaxInFlight int
	// OrderingKey makes events with the same value go one after the other.
	OrderingKey Expr
	// Retry is how often an event is tried before it is dead-lettered.
	Retry  Retry
	Dedupe Dedupe
}

// Dedupe keeps events that were delivered once from being delivered again.
type Dedupe struct {
	Enabled bool
	// Key tells events apart; empty is source and id.
	Key Expr
	// TTL is how long a delivered event is remembered; zero is a day.
	TTL time.Duration
	// Store is the state store that remembers them, for all replicas of the app;
	// empty is the data folder. StorePlace is where it is named.
	Store      string
	StorePlace Place
}

// maxWindow bounds what one route may hold.
const maxWindow = 1 << 20

// flow reads the fields of a document.
func (r *reader) flow(spec *fields) (f Flow) {
	f.Concurrency = spec.int("concurrency", 0, 1, maxLanes)
	f.MaxInFlight = spec.int("maxInFlight", 0, 1, maxWindow)
	f.OrderingKey = spec.expr("orderingKey")
	if n := spec.get("retry"); n != nil {
		f.Retry = r.retry(n)
	}
	f.Dedupe = r.dedupe(spec)
	if f.MaxInFlight > 0 && f.MaxInFlight < f.Concurrency {
		r.hard(spec.place("maxInFlight"), "raise it, or lower concurrency",
			"%s is less than %s, %d", spec.name("maxInFlight"), spec.name("concurrency"), f.Concurrency)
	}
	return f
}

// dedupe reads true, or a mapping.
func (r *reader) dedupe(spec *fields) (d Dedupe) {
	n := spec.get("dedupe")
	if n == nil {
		return d
	}
	if n.kind == scalarNode {
		d.Enabled = spec.bool("dedupe")
		return d
	}
	f := r.table(n, spec.name("dedupe"), n.at, true)
	d = Dedupe{Enabled: true, Key: f.expr("key"), TTL: f.duration("ttl", 0), Store: f.text("store"), StorePlace: f.place("store")}
	f.done()
	return d
}

// flowKeys are the metadata of a subscription that make a Flow.
func flowKeys() []string {
	return []string{
		"concurrency", "maxInFlight", "orderingKey", "retryPolicy", "retryDuration", "retryMaxInterval",
		"maxRetries", "dedupe", "dedupeKey", "dedupeTTL", "dedupeStore",
	}
}

// flowMetadata reports what is wrong with the keys of a Flow in a document.
func (r *reader) flowMetadata(metadata map[string]string, places map[string]Place) {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		one := map[string]string{key: metadata[key]}
		if _, err := (Flow{}).Metadata(one); err != nil {
			r.hard(places[key], "", "%v", err)
		}
	}
}

// Metadata returns the flow with what it does not say itself taken from the
// metadata of the subscription: concurrency, maxInFlight, orderingKey,
// retryPolicy, retryDuration, retryMaxInterval, maxRetries, dedupe, dedupeKey
// and dedupeTTL, in any case. The words that Dapr has for concurrency, single
// and parallel, mean 1 and the default. The error, of kind Invalid, names the
// key and what it wants.
func (f Flow) Metadata(metadata map[string]string) (Flow, error) {
	var first error
	for key, value := range metadata {
		i := slices.IndexFunc(flowKeys(), func(k string) bool { return strings.EqualFold(k, key) })
		if i < 0 || value == "" {
			continue
		}
		if err := f.set(flowKeys()[i], value); err != nil && (first == nil || err.Error() < first.Error()) {
			first = err
		}
	}
	if first == nil && f.MaxInFlight > 0 && f.MaxInFlight < f.Concurrency {
		first = fault.New(fault.Invalid, "read metadata maxInFlight: %d is less than concurrency, %d", f.MaxInFlight, f.Concurrency)
	}
	return f, first
}

// set takes one value of the metadata, unless the flow says so itself.
func (f *Flow) set(key, value string) (err error) {
	switch key {
	case "concurrency":
		return f.setConcurrency(value)
	case "maxInFlight":
		return setNumber(&f.MaxInFlight, key, value, 1, maxWindow)
	case "orderingKey":
		setExpr(&f.OrderingKey, value)
		return nil
	case "dedupe", "dedupeKey", "dedupeTTL", "dedupeStore":
		return f.Dedupe.set(key, value)
	default:
		return f.Retry.set(key, value)
	}
}

func (f *Flow) setConcurrency(value string) error {
	switch {
	case strings.EqualFold(value, "parallel"):
		return nil
	case strings.EqualFold(value, "single"):
		value = "1"
	}
	return setNumber(&f.Concurrency, "concurrency", value, 1, maxLanes)
}

func (d *Dedupe) set(key, value string) (err error) {
	switch key {
	case "dedupe":
		on, err := ParseBool(value)
		if err != nil {
			return wrongValue(key, value, "true or false")
		}
		d.Enabled = d.Enabled || on
	case "dedupeStore":
		d.Enabled, d.Store = true, value
	case "dedupeKey":
		d.Enabled = true
		setExpr(&d.Key, value)
	default:
		d.Enabled = true
		return setDuration(&d.TTL, key, value)
	}
	return nil
}

func (r *Retry) set(key, value string) error {
	if r.Place != (Place{}) {
		return nil // the document has a retry of its own
	}
	if !r.Set {
		r.Set, r.MaxRetries = true, DefaultRetries
	}
	switch key {
	case "retryPolicy":
		if value != "exponential" && value != "constant" {
			return wrongValue(key, value, "exponential or constant")
		}
		r.Policy = value
		return nil
	case "retryDuration":
		return setDuration(&r.Duration, key, value)
	case "retryMaxInterval":
		return setDuration(&r.MaxInterval, key, value)
	default:
		r.MaxRetries = 0
		return setNumber(&r.MaxRetries, key, value, -1, math.MaxInt32)
	}
}

func setExpr(to *Expr, value string) {
	if to.Text == "" {
		*to = Expr{Text: value}
	}
}

func setNumber(to *int, key, value string, least, most int) error {
	n, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil || n < least || n > most {
		return wrongValue(key, value, fmt.Sprintf("a whole number from %d to %d", least, most))
	}
	if *to == 0 {
		*to = n
	}
	return nil
}

func setDuration(to *time.Duration, key, value string) error {
	d, err := ParseDuration(value)
	if err != nil || d <= 0 {
		return wrongValue(key, value, "a duration above zero, such as 200ms or 5s")
	}
	if *to == 0 {
		*to = d
	}
	return nil
}

func wrongValue(key, value, want string) error {
	return fault.New(fault.Invalid, "read metadata %s: %q, want %s", key, cut(value, 80), want)
}
