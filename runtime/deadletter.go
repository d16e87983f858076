package runtime

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
)

// maxReason bounds the reason in a dead letter's metadata, in bytes.
const maxReason = 1024

func (ps *parts) deadLetterMetadata(l *router.DeadLetter) map[string]string {
	reason := l.Reason
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	m := merge(l.Delivery.Metadata, map[string]string{
		deadletters.ReasonKey: reason, deadletters.KindKey: l.Kind, deadletters.AttemptsKey: strconv.Itoa(l.Attempts),
		deadletters.RouteKey: l.Route, deadletters.TargetKey: l.Target, deadletters.OriginKey: l.Delivery.Origin,
		deadletters.TimeKey: l.Time.UTC().Format(time.RFC3339Nano), deadletters.AppKey: ps.env.AppID,
	})
	delete(m, deadletters.KeyKey) // of a dead letter that is given up again
	if l.Key != "" {
		m[deadletters.KeyKey] = l.Key
	}
	if _, again := l.Delivery.Metadata[deadletters.RouteKey]; again {
		m[deadletters.HopsKey] = strconv.Itoa(hopsOf(m) + 1)
	}
	if l.Delivery.Replays > 0 {
		m[deadletters.ReplaysKey] = strconv.Itoa(l.Delivery.Replays)
	}
	return m
}

// hopsOf is how often a dead letter was given up again; what is not a number
// was not written by us.
func hopsOf(metadata map[string]string) int {
	n, err := strconv.Atoi(metadata[deadletters.HopsKey])
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// deadLetterTime bounds the writing of one dead letter; after that it is tried
// again.
const deadLetterTime = 30 * time.Second

// deadLetterTopic writes dead letters to a topic: the bytes as received, with
// the reasons beside them, not in them.
func deadLetterTopic(ps *parts, name, topic string) func(context.Context, *router.DeadLetter) error {
	return func(ctx context.Context, l *router.DeadLetter) error {
		ctx, cancel := context.WithTimeout(ctx, deadLetterTime)
		defer cancel()
		bus, err := ps.bus(name)
		if err != nil {
			return err
		}
		metadata := ps.deadLetterMetadata(l)
		if hopsOf(metadata) > router.MaxHops { // kept where it is
			return fault.New(fault.Invalid, "give the event up to %s/%s: it was given up %d times on dead letter topics, which go round in circles; "+
				"name a topic that no wildcard of this app matches", name, topic, router.MaxHops)
		}
		return bus.Forward(ctx, topic, deadLetterBody(l), metadata)
	}
}

// deadLetterBody is what the source received. An event that a binding minted
// has no bytes of its own beside its data, so its structured form is used.
func deadLetterBody(l *router.DeadLetter) []byte {
	if e := l.Delivery.Event; e != nil && !e.Structured() {
		return e.JSON()
	}
	return l.Delivery.Body
}

// deadLetterBinding writes dead letters with an output binding.
func deadLetterBinding(ps *parts, name, operation string, metadata map[string]*expr.Template) func(context.Context, *router.DeadLetter) error {
	return func(ctx context.Context, l *router.DeadLetter) error {
		ctx, cancel := context.WithTimeout(ctx, deadLetterTime)
		defer cancel()
		r := &bindings.Request{Operation: operation, Data: deadLetterBody(l), Metadata: ps.deadLetterMetadata(l)}
		if l.Delivery.Event != nil {
			rendered, err := render(metadata, l.Delivery.Event)
			if err != nil {
				return err
			}
			maps.Copy(r.Metadata, rendered)
		}
		_, err := invoke(ctx, ps, name, r)
		return err
	}
}
