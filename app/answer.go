package app

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// MaxPause is the longest pause that an app can ask for.
const MaxPause = time.Hour

// Retried is a Retry not before the pause that err asks for.
func Retried(err error) cloudevents.Outcome {
	return cloudevents.Retried(err, fault.RetryAfter(err))
}

// Unanswered is the outcome of a call without an answer: Leave when ctx was
// cancelled, else a retry.
func Unanswered(ctx context.Context, path string, err error) cloudevents.Outcome {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cloudevents.Left("stopped while calling the app at " + path)
	}
	return Retried(err)
}

// WordOutcome is what a status word of the app means, at the place that is
// called path: SUCCESS or nothing, RETRY, DROP; any other is a retry. After is
// how long the app asks to wait before a retry.
func WordOutcome(path, word string, after time.Duration) cloudevents.Outcome {
	switch word {
	case "", "SUCCESS":
		return cloudevents.Acked()
	case "DROP":
		return cloudevents.Dropped("app said DROP at "+path,
			fault.New(fault.Dropped, "call app at %s: it said DROP", path))
	case "RETRY":
		err := fault.New(fault.Unavailable, "call app at %s: it said RETRY", path)
		return Retried(fault.WithRetryAfter(err, after))
	default:
		return cloudevents.Retried(fault.New(fault.Internal,
			"call app at %s: it said %.40q, which is none of SUCCESS, RETRY and DROP", path, word), 0)
	}
}

// Pause reads how long an app asks to wait: "30s", or a number of seconds, at
// most [MaxPause]. Anything else is no pause.
func Pause(text string) time.Duration {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(min(max(seconds, 0), MaxPause.Seconds()) * float64(time.Second))
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return min(max(d, 0), MaxPause)
}

// Escape returns value as it is when all its bytes are plain, else with those
// that are not, and %, as %XX.
func Escape(value string, plain func(byte) bool) string {
	bad := 0
	for i := range len(value) {
		if !plain(value[i]) {
			bad++
		}
	}
	if bad == 0 {
		return value
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(value) + 2*bad)
	for i := range len(value) {
		if c := value[i]; plain(c) && c != '%' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

// Reply is what an app may answer to the event of an input binding: state to
// save and output bindings to invoke, as part of the same delivery.
type Reply struct {
	StoreName string
	State     []state.Change
	// To names output bindings.
	To []string
	// Concurrency is "sequential" (also when empty) or "parallel".
	Concurrency string
	// Data is for the output bindings: a JSON string's text, any other JSON
	// value as it was written. Nil when the app said nothing.
	Data []byte
	// Operation is that of the output bindings; default create.
	Operation string
	Metadata  map[string]string
	// Err is why the reply cannot be carried out although it is one: a field
	// has a wrong type. Nothing else is set then.
	Err error
}
