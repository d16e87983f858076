package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
)

// maxUpdates bounds the subscriptions to configuration of an instance, those of
// calls and those of the app together.
const maxUpdates = 1000

// Updates is what the API needs to tell the app of configuration changes.
type Updates interface {
	// TellApp hands the app a change of the item under key. Kind NotFound when
	// there is no app.
	TellApp(ctx context.Context, store, key string, body []byte) error
	// Background runs task until the instance stops, which ends its context. Kind
	// Unavailable when it is stopping, NotFound when there is no app.
	Background(task func(ctx context.Context)) error
	// Logger is for what tasks have to say.
	Logger() *slog.Logger
}

// ConfigurationUpdates is a subscription to configuration items.
type ConfigurationUpdates struct {
	// Store is the component's name.
	Store string
	// Keys are those of interest; empty: all. Metadata is that of the request.
	Keys     []string
	Metadata map[string]string
	// Ready is called once with the id, when changes from now on are delivered.
	Ready func(id string) error
	// Deliver hands over a change; an item that is gone is the zero item.
	Deliver func(ctx context.Context, id, key string, item configuration.Item) error
}

// updates are the subscriptions to configuration, by id.
type updates struct {
	mu   sync.Mutex
	open map[string]*update
}

type update struct {
	store  string
	what   string // store, keys and metadata of one of the app, else empty
	cancel context.CancelFunc
	ready  chan struct{} // closed when it has begun, or failed
	err    error         // why it failed; set before ready is closed
}

// add makes a subscription. One of the app for the same things is there once:
// an app that starts again asks again.
func (us *updates) add(store, what string, cancel context.CancelFunc) (id string, u *update, added bool, err error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for id, u := range us.open {
		if what != "" && u.what == what {
			return id, u, false, nil
		}
	}
	if len(us.open) >= maxUpdates {
		return "", nil, false, Errorf(LimitReached, "subscribe to configuration of %s: there are %d subscriptions already, the limit", store, maxUpdates)
	}
	if us.open == nil {
		us.open = map[string]*update{}
	}
	id, u = cloudevents.NewID(), &update{store: store, what: what, cancel: cancel, ready: make(chan struct{})}
	us.open[id] = u
	return id, u, true, nil
}

func (us *updates) remove(id string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	delete(us.open, id)
}

// GetConfiguration reads the items under keys, or all there are when none is
// named; what is not there is left out.
func (a *API) GetConfiguration(ctx context.Context, store string, keys []string, metadata map[string]string) (map[string]configuration.Item, error) {
	s, err := a.configurationStore(store)
	if err != nil {
		return nil, err
	}
	items, err := s.Get(ctx, keys, metadata)
	if err != nil {
		return nil, wrap(ConfigurationGet, err).on("configuration", store)
	}
	return items, nil
}

// WatchConfiguration runs a subscription until ctx ends or somebody unsubscribes
// it, which are no errors.
func (a *API) WatchConfiguration(ctx context.Context, w *ConfigurationUpdates) error {
	if _, err := a.configurationStore(w.Store); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	id, u, _, err := a.updates.add(w.Store, "", cancel)
	if err != nil {
		return err
	}
	defer a.updates.remove(id)
	return a.watch(ctx, id, u, w)
}

func (a *API) watch(ctx context.Context, id string, u *update, w *ConfigurationUpdates) error {
	sub := &configuration.Subscription{
		Find: func() (*configuration.Store, error) { return a.rt.ConfigurationStore(w.Store) },
		Keys: w.Keys, Metadata: w.Metadata, Logger: a.rt.Logger(),
		Ready: func() error {
			if err := w.Ready(id); err != nil {
				return err
			}
			close(u.ready)
			return nil
		},
		Deliver: func(ctx context.Context, key string, item configuration.Item) error {
			if ctx.Err() != nil { // nothing is told after the answer to unsubscribing
				return context.Cause(ctx)
			}
			return w.Deliver(ctx, id, key, item)
		},
	}
	if err := sub.Run(ctx); err != nil && ctx.Err() == nil {
		return wrap(ConfigurationSubscribe, err).on("configuration", w.Store)
	}
	return nil
}

// SubscribeConfiguration has the app told of changes until the instance stops or
// somebody unsubscribes, and returns the id.
func (a *API) SubscribeConfiguration(ctx context.Context, store string, keys []string, metadata map[string]string) (string, error) {
	if _, err := a.configurationStore(store); err != nil {
		return "", err
	}
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	what, err := json.Marshal([]any{store, keys, metadata})
	if err != nil {
		return "", wrap(ConfigurationSubscribe, err)
	}
	stop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	id, u, added, err := a.updates.add(store, string(what), cancel)
	if err != nil {
		cancel()
		return "", err
	}
	if !added {
		cancel()
		return id, u.await(ctx)
	}
	w := &ConfigurationUpdates{
		Store: store, Keys: keys, Metadata: metadata,
		Ready: func(string) error { return nil },
		Deliver: func(ctx context.Context, id, key string, item configuration.Item) error {
			body, err := json.Marshal(changeOf(id, key, item))
			if err != nil {
				return err
			}
			return a.rt.TellApp(ctx, store, key, body)
		},
	}
	err = a.rt.Background(func(life context.Context) {
		defer a.updates.remove(id)
		defer context.AfterFunc(life, cancel)()
		defer cancel()
		u.end(a.watch(stop, id, u, w))
	})
	if err != nil {
		cancel()
		a.updates.remove(id)
		err = a.noApp(store, err)
		u.end(err)
		return "", err
	}
	return id, u.await(ctx)
}

func (a *API) noApp(store string, err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return wrap(AppChannel, err).on("configuration", store)
	}
	return wrap(ConfigurationSubscribe, err).on("configuration", store)
}

// end notes why a subscription ended that had not begun.
func (u *update) end(err error) {
	select {
	case <-u.ready:
	default:
		if u.err = err; err == nil {
			u.err = Errorf(ConfigurationSubscribe, "subscribe to configuration of %s: it was ended", u.store)
		}
		close(u.ready)
	}
}

func (u *update) await(ctx context.Context) error {
	select {
	case <-u.ready:
		return u.err
	case <-ctx.Done():
		return wrap(ConfigurationSubscribe, ctx.Err()).on("configuration", u.store)
	}
}

// UnsubscribeConfiguration ends a subscription of the store. Without one of that
// id the error has the problem ConfigurationUnsubscribe.
func (a *API) UnsubscribeConfiguration(store, id string) error {
	if _, err := a.configurationStore(store); err != nil {
		return err
	}
	a.updates.mu.Lock()
	defer a.updates.mu.Unlock()
	u := a.updates.open[id]
	if u == nil || u.store != store {
		return Errorf(ConfigurationUnsubscribe, "unsubscribe %q from %s: %w", id, store, errors.New("there is no such subscription")).on("configuration", store)
	}
	u.cancel()
	delete(a.updates.open, id)
	return nil
}

func (a *API) configurationStore(name string) (*configuration.Store, error) {
	if !a.rt.Configured("configuration") {
		return nil, Errorf(ConfigurationNotConfigured, "use configuration store %q: no configuration store is loaded", name).on("configuration", name)
	}
	s, err := a.rt.ConfigurationStore(name)
	if err != nil {
		return nil, Errorf(ConfigurationNotFound, "use configuration store %q: %w", name, err).on("configuration", name)
	}
	return s, nil
}

// ConfigurationItem is an item as it is written over HTTP.
type ConfigurationItem struct {
	Value    string            `json:"value,omitempty"`
	Version  string            `json:"version,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

type configurationChange struct {
	ID    string                       `json:"id"`
	Items map[string]ConfigurationItem `json:"items"`
}

func changeOf(id, key string, item configuration.Item) configurationChange {
	return configurationChange{ID: id, Items: map[string]ConfigurationItem{key: ConfigurationItem(item)}}
}

// configurationRow is the part of the table about configuration.
func configurationRow(p Problem) row {
	return map[Problem]row{
		ConfigurationNotConfigured: {"ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "", 500, grpcFailedPrecondition, fault.NotFound},
		ConfigurationNotFound:      {"ERR_CONFIGURATION_STORE_NOT_FOUND", "", 400, grpcInvalidArgument, fault.NotFound},
		ConfigurationGet:           {"ERR_CONFIGURATION_GET", "", 500, grpcInternal, fault.Internal},
		ConfigurationSubscribe:     {"ERR_CONFIGURATION_SUBSCRIBE", "", 500, grpcInvalidArgument, fault.Internal},
		ConfigurationUnsubscribe:   {"ERR_CONFIGURATION_UNSUBSCRIBE", "", 500, grpcInternal, fault.NotFound},
		AppChannel:                 {"ERR_APP_CHANNEL_NIL", "", 500, grpcInternal, fault.NotFound},
	}[p]
}
