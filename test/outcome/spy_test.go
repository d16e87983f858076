package outcome

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/pubsub/inmemory"
	"github.com/penstock-io/penstock/pubsub/sqlite"
)

// ledger is what the brokers were told, by topic.
type ledger struct {
	mu      sync.Mutex
	told    map[string][]string // verdicts in order
	letters map[string]pubsub.Message
}

func newLedger() *ledger {
	return &ledger{told: map[string][]string{}, letters: map[string]pubsub.Message{}}
}

func (l *ledger) toldOf(topic string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.told[topic])
}

func (l *ledger) letterOf(topic string) (pubsub.Message, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, ok := l.letters[topic]
	return m, ok
}

type noOptions struct{}

// components are the embedded brokers with a spy in front: it notes every
// outcome and every dead letter, and passes all on.
func (l *ledger) components() component.List {
	spied := func(name string, def component.Definition) component.Definition {
		return pubsub.Define(name, component.About{}, func(ctx context.Context, env component.Env, _ noOptions) (pubsub.Driver, error) {
			d, err := def.Open(ctx, env, nil)
			if err != nil {
				return nil, err
			}
			return &spy{d.(pubsub.Driver), l}, nil
		})
	}
	return component.List{spied("memory", inmemory.Component), spied("sqlite", sqlite.Component)}
}

type spy struct {
	pubsub.Driver
	ledger *ledger
}

// Features implements pubsub.Featured.
func (s *spy) Features() pubsub.Features { return s.Driver.(pubsub.Featured).Features() }

// Prepare implements pubsub.Preparer.
func (s *spy) Prepare(ctx context.Context, sub pubsub.Subscription) error {
	return s.Driver.(pubsub.Preparer).Prepare(ctx, sub)
}

// Publish notes dead letters; their topics are called dead-TOPIC.
func (s *spy) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	if of, ok := strings.CutPrefix(topic, "dead-"); ok {
		s.ledger.mu.Lock()
		s.ledger.letters[of] = batch[0]
		s.ledger.mu.Unlock()
	}
	return s.Driver.Publish(ctx, topic, batch)
}

// Subscribe notes what each delivery is settled with.
func (s *spy) Subscribe(ctx context.Context, sub pubsub.Subscription, emit cloudevents.EmitFunc) error {
	return s.Driver.Subscribe(ctx, sub, func(ctx context.Context, d *cloudevents.Delivery) error {
		settle := d.Settle
		d.Settle = func(o cloudevents.Outcome) {
			s.ledger.mu.Lock()
			s.ledger.told[sub.Topic] = append(s.ledger.told[sub.Topic], o.Verdict.String())
			s.ledger.mu.Unlock()
			settle(o)
		}
		return emit(ctx, d)
	})
}
