package api

import (
	"maps"
)

// The bounds of what apps may set as metadata.
const (
	// MaxExtended is the number of entries.
	MaxExtended = 128
	// MaxExtendedKey is the length of a key in bytes.
	MaxExtendedKey = 256
	// MaxExtendedValue is the length of a value in bytes.
	MaxExtendedValue = 8 << 10
)

// VersionKey is the key of Metadata.Extended under which Dapr's tools look for
// the version of Dapr that is spoken. Apps cannot set it.
const VersionKey = "daprRuntimeVersion"

// Metadata describes a running instance in the form of Dapr's metadata
// document. Lists and objects are always written, empty ones too, because SDKs
// read into them without looking.
type Metadata struct {
	ID               string             `json:"id"`
	RuntimeVersion   string             `json:"runtimeVersion"`
	EnabledFeatures  []string           `json:"enabledFeatures"`
	Actors           []ActiveActors     `json:"actors"`
	Components       []ComponentInfo    `json:"components"`
	Extended         map[string]string  `json:"extended"`
	Subscriptions    []SubscriptionInfo `json:"subscriptions"`
	HTTPEndpoints    []NamedInfo        `json:"httpEndpoints"`
	MCPServers       []NamedInfo        `json:"mcpServers"`
	Resiliencies     []NamedInfo        `json:"resiliencies"`
	Breakers         []BreakerInfo      `json:"circuitBreakers"` // ours
	WorkflowPolicies []NamedInfo        `json:"workflowAccessPolicies"`
	App              AppConnection      `json:"appConnectionProperties"`
	ActorRuntime     ActorRuntime       `json:"actorRuntime"`
	Scheduler        Scheduler          `json:"scheduler"`
	Workflows        Workflows          `json:"workflows"`
}

// ComponentInfo is one loaded component.
type ComponentInfo struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"`
	// State is ours: how far the component is, in one word: opening, ready,
	// failing, failed or closed. Since is when it became so, as in RFC 3339;
	// Error says why it is not ready and never holds a secret.
	State string `json:"state,omitempty"`
	Since string `json:"since,omitempty"`
	Error string `json:"error,omitempty"`
}

// SubscriptionInfo is one subscription, wherever it was declared.
type SubscriptionInfo struct {
	PubSub          string            `json:"pubsubname"`
	Topic           string            `json:"topic"`
	Metadata        map[string]string `json:"metadata"`
	Rules           []RuleInfo        `json:"rules"`
	DeadLetterTopic string            `json:"deadLetterTopic"`
	// Type is DECLARATIVE, PROGRAMMATIC or STREAMING.
	Type string `json:"type"`
}

// RuleInfo sends matching events to a path of the app.
type RuleInfo struct {
	Match string `json:"match"`
	Path  string `json:"path"`
}

// NamedInfo is a loaded resource of which only the name is told.
type NamedInfo struct {
	Name string `json:"name"`
}

// BreakerInfo is a circuit breaker that was used: of a component in one direction,
// or of a method of an app.
type BreakerInfo struct {
	Component string `json:"component,omitempty"`
	Direction string `json:"direction,omitempty"`
	App       string `json:"app,omitempty"`
	Method    string `json:"method,omitempty"`
	// State is closed, half-open or open. While one of what comes in is open, the
	// intake of the component pauses.
	State string `json:"state"`
}

// ActiveActors counts the actors of one type.
type ActiveActors struct {
	Type  string `json:"type"`
	Count int    `json:"count"`
}

// AppConnection is how the app is reached.
type AppConnection struct {
	Port           int        `json:"port"`
	Protocol       string     `json:"protocol"`
	ChannelAddress string     `json:"channelAddress"`
	MaxConcurrency int        `json:"maxConcurrency"`
	Health         *AppHealth `json:"health,omitempty"` // nil: the app's health is not checked
}

// AppHealth is how the app's health is checked; durations as in "5s".
type AppHealth struct {
	Path      string `json:"healthCheckPath"`
	Interval  string `json:"healthProbeInterval"`
	Timeout   string `json:"healthProbeTimeout"`
	Threshold int    `json:"healthThreshold"`
}

// ActorRuntime is the state of actors: INITIALIZING, DISABLED or RUNNING.
type ActorRuntime struct {
	Status       string         `json:"runtimeStatus"`
	ActiveActors []ActiveActors `json:"activeActors"`
	HostReady    bool           `json:"hostReady"`
	Placement    string         `json:"placement"`
}

// Scheduler is the connection to job schedulers.
type Scheduler struct {
	Addresses []string `json:"connected_addresses"`
}

// Workflows counts connected workflow workers.
type Workflows struct {
	Workers int `json:"connectedWorkers"`
}

// Metadata describes the instance. The caller owns the result.
func (a *API) Metadata() Metadata {
	m := a.rt.Snapshot()
	extended := map[string]string{}
	a.mu.RLock()
	maps.Copy(extended, a.extended)
	a.mu.RUnlock()
	maps.Copy(extended, m.Extended)
	m.Extended = extended
	if m.ID == "" {
		m.ID = a.app
	}
	if m.ActorRuntime.Status == "" {
		m.ActorRuntime.Status = "DISABLED"
	}
	m.fill()
	return m
}

// fill makes every list one that is written as such.
func (m *Metadata) fill() {
	m.EnabledFeatures = list(m.EnabledFeatures)
	m.Actors = list(m.Actors)
	m.Components = list(m.Components)
	for i := range m.Components {
		m.Components[i].Capabilities = list(m.Components[i].Capabilities)
	}
	m.Subscriptions = list(m.Subscriptions)
	for i := range m.Subscriptions {
		s := &m.Subscriptions[i]
		s.Rules = list(s.Rules)
		if s.Metadata == nil {
			s.Metadata = map[string]string{}
		}
	}
	m.HTTPEndpoints = list(m.HTTPEndpoints)
	m.MCPServers = list(m.MCPServers)
	m.Resiliencies = list(m.Resiliencies)
	m.Breakers = list(m.Breakers)
	m.WorkflowPolicies = list(m.WorkflowPolicies)
	m.ActorRuntime.ActiveActors = list(m.ActorRuntime.ActiveActors)
	m.Scheduler.Addresses = list(m.Scheduler.Addresses)
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// SetMetadata sets one entry of the metadata document's extended part, for as
// long as the process lives. The bounds are [MaxExtended], [MaxExtendedKey] and
// [MaxExtendedValue]; keys that the instance itself uses are refused.
func (a *API) SetMetadata(key, value string) error {
	switch {
	case key == "":
		return Errorf(BadRequest, "set metadata: the key is empty; use metadata/{key}")
	case len(key) > MaxExtendedKey:
		return Errorf(BadRequest, "set metadata: the key has %d bytes, more than %d", len(key), MaxExtendedKey)
	case len(value) > MaxExtendedValue:
		return Errorf(BadRequest, "set metadata %q: the value has %d bytes, more than %d", key, len(value), MaxExtendedValue)
	}
	if _, ours := a.rt.Snapshot().Extended[key]; ours || key == VersionKey {
		return Errorf(BadRequest, "set metadata %q: the key is reserved", key)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.extended[key]; !known && len(a.extended) >= MaxExtended {
		return Errorf(LimitReached, "set metadata %q: there are %d entries already, the limit", key, MaxExtended)
	}
	a.extended[key] = value
	return nil
}
