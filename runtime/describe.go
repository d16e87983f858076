package runtime

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/state"
)

// speaks is the version of Dapr whose APIs are spoken.
const speaks = "1.18.3"

// found looks for a part of an instance that serves. The API listens before the
// components are made, so one that is not there yet is waited for: a caller that
// was quick must not be told that it is none. That takes a few seconds at most.
func found[T any](r *Runtime, look func() (T, error)) (T, error) {
	part, err := look()
	if err == nil {
		return part, nil
	}
	<-r.parted
	return look()
}

// PubSub implements api.Components.
func (r *Runtime) PubSub(name string) (*pubsub.Bus, error) {
	return found(r, func() (*pubsub.Bus, error) { return r.parts.bus(name) })
}

// Binding implements api.Components.
func (r *Runtime) Binding(name string) (*bindings.Binding, error) {
	return found(r, func() (*bindings.Binding, error) { return r.parts.outputOf(name) })
}

// SecretStore implements api.Components.
func (r *Runtime) SecretStore(name string) (*secrets.Store, error) {
	return found(r, func() (*secrets.Store, error) { return r.parts.storeOf(name) })
}

// StateStore implements api.Stores.
func (r *Runtime) StateStore(name string) (*state.Store, error) {
	return found(r, func() (*state.Store, error) { return r.parts.stateOf(name) })
}

// CryptoProvider implements api.Stores.
func (r *Runtime) CryptoProvider(name string) (*crypto.Provider, error) {
	return found(r, func() (*crypto.Provider, error) { return r.parts.cryptoOf(name) })
}

// LockStore implements api.Stores.
func (r *Runtime) LockStore(name string) (*lock.Store, error) {
	return found(r, func() (*lock.Store, error) { return r.parts.lockOf(name) })
}

// ConfigurationStore implements api.Stores.
func (r *Runtime) ConfigurationStore(name string) (*configuration.Store, error) {
	return found(r, func() (*configuration.Store, error) { return r.parts.configurationOf(name) })
}

// Configured implements api.Components.
func (r *Runtime) Configured(kind string) bool { return r.parts.has(kind) }

// NotReady implements api.Instance.
func (r *Runtime) NotReady() []string {
	switch {
	case r.stopping.Load():
		return []string{"the stop to complete"}
	case !r.serving.Load():
		return append(r.parts.missing(), "components to open")
	}
	missing := r.parts.missing()
	if why := r.lacksIdentity(); why != "" {
		missing = append(missing, why)
	}
	switch {
	case r.started.Load():
	case r.app != nil:
		missing = append(missing, fmt.Sprintf("the app on port %d", r.o.App.Port))
	default:
		missing = append(missing, "the start to complete")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if waitsForApp(r.unasked) {
		missing = append(missing, "the app's subscriptions: "+r.unasked.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(r.unstarted)) {
		if err := r.unstarted[name]; fault.Retriable(err) {
			missing = append(missing, "route "+name+": "+err.Error())
		}
	}
	return missing
}

// NotOutbound implements api.Instance.
func (r *Runtime) NotOutbound() []string {
	if r.serving.Load() {
		return nil
	}
	return []string{"components"}
}

// Shutdown implements api.Instance.
func (r *Runtime) Shutdown(force bool) {
	select {
	case r.shutdown <- force:
	default: // asked already
	}
}

// Snapshot implements api.Instance.
func (r *Runtime) Snapshot() api.Metadata {
	m := api.Metadata{
		ID: r.o.AppID, RuntimeVersion: speaks, EnabledFeatures: []string{"HotReload"},
		Extended: map[string]string{api.VersionKey: speaks, "penstockVersion": r.o.Version},
	}
	if text := r.deadLetterCounts(); text != "" {
		m.Extended["deadLetters"] = text
	}
	for _, p := range r.parts.all() {
		m.Components = append(m.Components, infoOf(p))
	}
	for _, name := range r.parts.policies.list() {
		m.Resiliencies = append(m.Resiliencies, api.NamedInfo{Name: name})
	}
	m.Breakers = r.parts.policies.breakerStates()
	for _, name := range r.endpoints.names() {
		m.HTTPEndpoints = append(m.HTTPEndpoints, api.NamedInfo{Name: name})
	}
	r.mu.Lock()
	for _, route := range r.running {
		if route.sub != nil {
			m.Subscriptions = append(m.Subscriptions, subscriptionInfo(route))
		}
	}
	r.mu.Unlock()
	for _, route := range r.streams.running() {
		m.Subscriptions = append(m.Subscriptions, subscriptionInfo(route))
	}
	sortSubscriptions(m.Subscriptions)
	if r.app != nil {
		m.App = r.appInfo()
	}
	return m
}

func infoOf(p *part) api.ComponentInfo {
	c := api.ComponentInfo{Name: p.config.Name, Type: p.config.Type, Version: p.config.Version, Capabilities: p.def.About.Capabilities}
	if able, ok := p.life.(component.Capable); ok {
		c.Capabilities = able.Capabilities()
	}
	if p.bus != nil {
		c.Capabilities = capabilities(c.Capabilities, p.bus.Features())
	}
	if p.state != nil {
		c.Capabilities = p.state.Capabilities()
	}
	s := p.life.State()
	c.State, c.Since = s.Word, s.Since.UTC().Format(time.RFC3339)
	if s.Word != component.Ready {
		c.Error = s.LastError
	}
	return c
}

// capabilities adds Dapr's words for what a broker can do.
func capabilities(known []string, f pubsub.Features) []string {
	out := slices.Clone(known)
	add := func(can bool, word string) {
		if can && !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	add(f.TTL, "MESSAGE_TTL")
	add(f.Wildcards, "SUBSCRIBE_WILDCARDS")
	return out
}

func subscriptionInfo(r running) api.SubscriptionInfo {
	s := api.SubscriptionInfo{
		PubSub: r.sub.PubSub, Topic: r.sub.Topic, Metadata: r.sub.Metadata,
		DeadLetterTopic: r.sub.DeadLetterTopic, Type: r.kind,
	}
	for _, rule := range r.sub.Rules {
		s.Rules = append(s.Rules, api.RuleInfo{Match: rule.Match, Path: rule.Path})
	}
	return s
}

func (r *Runtime) appInfo() api.AppConnection {
	a := r.o.App
	c := api.AppConnection{Port: a.Port, Protocol: a.Protocol, ChannelAddress: a.Address, MaxConcurrency: a.MaxConcurrency}
	if a.HealthCheck {
		c.Health = &api.AppHealth{Path: a.HealthPath, Interval: a.HealthInterval.String(), Timeout: a.HealthTimeout.String(), Threshold: a.HealthThreshold}
	}
	return c
}
