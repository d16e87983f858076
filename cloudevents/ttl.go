package cloudevents

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// expiration is the attribute that says when an event is worth nothing any
// more.
const expiration = "expiration"

// TTL reads the time to live out of the metadata of a publish: ttlInSeconds,
// or else ttl, in whole seconds; the case of the keys does not matter. It
// reports false when there is none. A value that is not a positive integer, or
// is more than 292 years, is [fault.Invalid].
func TTL(metadata map[string]string) (time.Duration, bool, error) {
	for _, key := range [...]string{"ttlInSeconds", "ttl"} {
		text, ok := lookup(metadata, key)
		if !ok || text == "" {
			continue
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil || seconds <= 0 || seconds > math.MaxInt64/int64(time.Second) {
			return 0, false, fault.New(fault.Invalid,
				"read metadata %s: %.64q is not a time to live, use whole seconds from 1 up, such as 60", key, text)
		}
		return time.Duration(seconds) * time.Second, true, nil
	}
	return 0, false, nil
}

// WithExpiration returns the event with the attribute that makes [Event.Expired]
// report true from at on.
func (e *Event) WithExpiration(at time.Time) *Event {
	return e.With(Attr{expiration, at.UTC().Format(time.RFC3339Nano)})
}

// Expiration returns when the event expires. It reports false when nothing
// says so, or nothing that can be read as RFC 3339.
func (e *Event) Expiration() (time.Time, bool) {
	text, ok := e.Attr(expiration)
	if !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}

// Expired tells whether the event's expiration has come.
func (e *Event) Expired(now time.Time) bool {
	at, ok := e.Expiration()
	return ok && !now.Before(at)
}

// lookup returns the value of a key whatever its case: the key as given if it
// is there, else the first in byte order of those that match.
func lookup(metadata map[string]string, key string) (string, bool) {
	if v, ok := metadata[key]; ok {
		return v, true
	}
	found, value := "", ""
	for k, v := range metadata {
		if strings.EqualFold(k, key) && (found == "" || k < found) {
			found, value = k, v
		}
	}
	return value, found != ""
}
