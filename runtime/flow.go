package runtime

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/router/dedupe"
	"github.com/penstock-io/penstock/state"
)

// flow compiles the expressions of a flow: the ordering key, and what tells
// events apart. Both are nil where the flow has none.
func (c *compiler) flow(f config.Flow) (order, identity *expr.Value) {
	if f.OrderingKey.Text != "" {
		order = c.value(f.OrderingKey, "orderingKey")
	}
	return order, c.identity(f.Dedupe)
}

func (c *compiler) identity(d config.Dedupe) *expr.Value {
	if d.Key.Text == "" {
		return nil
	}
	return c.value(d.Key, "dedupe key")
}

// placedIn gives expressions that came from metadata the place of the document.
func placedIn(f config.Flow, at config.Place) config.Flow {
	for _, x := range []*config.Expr{&f.OrderingKey, &f.Dedupe.Key} {
		if x.Place == (config.Place{}) {
			x.Place = at
		}
	}
	return f
}

// ownRetry is the retry policy that a subscription or pipeline has itself.
func ownRetry(r config.Retry) resilience.Retry {
	return resilience.Retry{
		Constant: r.Policy == "constant", Initial: r.Duration, Max: r.MaxInterval, Limit: r.MaxRetries,
	}
}

// memory is the store of delivered events, opened when the first route needs
// it.
type memory struct {
	env   component.Env
	parts *parts

	mu    sync.Mutex
	store *dedupe.Store
}

// once makes the Once of a route; nil when it has none.
func (m *memory) once(ctx context.Context, route string, d config.Dedupe, identity *expr.Value) (*router.Once, error) {
	if !d.Enabled {
		return nil, nil
	}
	if d.Store != "" {
		find := func() (*state.Store, error) { return m.parts.stateOf(d.Store) }
		return &router.Once{Key: identityOf(identity), Claims: dedupe.InStore(find, route, d.TTL)}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.store == nil {
		store, err := dedupe.Open(ctx, m.env)
		if err != nil {
			return nil, err
		}
		m.store = store
	}
	return &router.Once{Key: identityOf(identity), Claims: m.store.Claims(route, d.TTL)}, nil
}

// identityOf is the key of a Once: an expression, or source and id. An event on
// which the expression fails has none.
func identityOf(v *expr.Value) func(*cloudevents.Event) string {
	if v == nil {
		return func(e *cloudevents.Event) string { return e.Source() + "\x00" + e.ID() }
	}
	return func(e *cloudevents.Event) string {
		key, err := v.String(e)
		if err != nil {
			return ""
		}
		return key
	}
}

func (m *memory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.store == nil {
		return nil
	}
	return m.store.Close()
}
