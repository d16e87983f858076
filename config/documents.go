// Package config reads the resource files of an app: Dapr's Component,
// Subscription, Configuration, Resiliency and HTTPEndpoint documents and our own
// Pipeline.
//
// A caller reads everything with [Load], or keeps it read with [Watch], and gets
// a [Set] of plain structs and the [Problems] found. [OpenOrder] and [Resolve]
// then put secrets into components; [Diff] tells what a new set changes. What a
// component's own options mean is not known here. [LoadRunFile] reads Dapr's
// multi-app run file.
//
// The package promises that every problem is reported at once, each with file,
// line, column and, where there is one, the nearest right word; that reading
// never waits for a pipe or runs away with a hostile file, bounded as the
// constants say; and that a file which Dapr accepts gives at most a problem
// marked Lenient, save for what is dangerous: a key given twice, a name that is a
// path, a token taken from the environment.
package config

import (
	"fmt"
	"strings"
	"time"
)

// Set is everything read from the resource folders and configuration files,
// after scopes and templates. It is a value: reading again makes a new one.
type Set struct {
	Components    []Component
	Subscriptions []Subscription
	Pipelines     []Pipeline
	Resiliencies  []Resiliency
	HTTPEndpoints []HTTPEndpoint
	Configuration Configuration
	// Broken holds the documents with errors, as far as they could be read. They
	// are for finding further errors, never for use; nil when there are none.
	Broken *Set
	// Elsewhere names the components that are for other apps or namespaces.
	Elsewhere []string
	// Skipped lists documents of kinds that this version does not use.
	Skipped []Skipped
	// Files lists every file read, for the watcher and the start-up line.
	Files []string
	// Sum is a digest of the files' contents: equal when nothing changed.
	Sum string
}

// Skipped is a document, or a part of one, that is not used.
type Skipped struct {
	Kind, Name string
	Why        string // for people: "this kind is not used by this version"
	Place      Place
}

// String is what it says to people: the place, the document and why.
func (s Skipped) String() string {
	return fmt.Sprintf("%s: %s: %s", s.Place, strings.TrimSpace(s.Kind+" "+s.Name), s.Why)
}

// Component is a Dapr Component document: one configured thing.
type Component struct {
	Name         string
	Type         string // "bindings.cron"
	Version      string // "v1"
	IgnoreErrors bool
	InitTimeout  time.Duration // zero: the default, 5 s
	Metadata     []Item
	SecretStore  string // auth.secretStore
	Scopes       []string
	Place        Place // of the document
	TypePlace    Place // of spec.type
	StorePlace   Place // of auth.secretStore
}

// Item is one metadata entry of a component. Its value is in Value unless it is
// a SecretRef, which [Resolve] turns into Value. Load has already looked up what
// the environment holds. The reader itself never sets EnvRef.
type Item struct {
	Name   string
	Value  string
	Secret bool // Value came from a secret store or the environment
	// Namespaced: the value was written with {namespace} in it, which Dapr
	// takes for a wish that topics are kept apart by namespace.
	Namespaced bool
	SecretRef  *SecretRef
	EnvRef     string
	Place      Place // of the value, else of the name
	NamePlace  Place
}

// SecretRef points into a secret store.
type SecretRef struct{ Name, Key string }

// Subscription is a Dapr Subscription document of either version, or one that
// the app returned.
type Subscription struct {
	Name            string
	PubSub          string
	Topic           string
	Rules           []Rule // in order; an empty Match always matches
	DeadLetterTopic string
	Bulk            Bulk
	Flow            Flow
	Metadata        map[string]string
	Scopes          []string
	Place           Place
	PubSubPlace     Place // of spec.pubsubname
}

// Rule sends events that match a CEL expression to a path of the app.
type Rule struct {
	Match string
	Path  string
	Place Place
}

// Bulk is the bulkSubscribe block of a subscription.
type Bulk struct {
	Enabled     bool
	MaxMessages int           // default 100
	MaxAwait    time.Duration // default 1 s
}

// Configuration is the part of Dapr's Configuration documents that this
// version uses; later files win.
type Configuration struct {
	// Denied lists component types that may not be opened.
	Denied []string
	// SecretScopes limits which secrets the app and components may read.
	SecretScopes []SecretScope
	// API limits which APIs may be called.
	API APIs
	// APILog is what is logged of calls of the API.
	APILog APILog
	// Inbound are the middlewares that requests of the HTTP API pass, spec.httpPipeline;
	// ToApp those of calls of an app over HTTP, spec.appHttpPipeline.
	Inbound, ToApp []Handler
	// Names is how other apps are found.
	Names NameResolution
	// Access is who may call what of the app.
	Access AccessControl
	// MTLS is mutual TLS between instances, spec.mtls.
	MTLS MTLS
	// Tracing is where traces go, spec.tracing.
	Tracing Tracing
	// Metric is what is counted, spec.metric.
	Metric Metric
	// Place is that of the last document read.
	Place Place
}

// Handler is one entry of a list of middlewares.
type Handler struct {
	Name      string // of the component
	Type      string // "middleware.http.bearer"
	Version   string // empty: v1
	Place     Place
	NamePlace Place
	TypePlace Place
}

// NameResolution is spec.nameResolution; the zero value is none.
type NameResolution struct {
	// Component is the last part of a type, as in "mdns"; Version may be empty.
	Component, Version string
	// Metadata are the options, flat: what is nested has a name with dots, as in
	// "client.address"; a list of texts is joined by commas; any other list is JSON
	// text.
	Metadata []Item
	// Place is that of Component.
	Place Place
}

// AccessControl is spec.accessControl. The zero value allows every call.
type AccessControl struct {
	// Action is what happens to a call that no policy decides: [Allow] or [Deny].
	// Empty: there is no access control.
	Action string
	// TrustDomain is that of the app, "public" unless it is given.
	TrustDomain string
	Policies    []AccessPolicy
	Place       Place
}

// The words of an action.
const (
	Allow = "allow"
	Deny  = "deny"
)

// AccessPolicy is about the calls of one app.
type AccessPolicy struct {
	// App, Namespace and TrustDomain are the identity of who calls.
	App, Namespace, TrustDomain string
	// Action is what happens when no operation decides; empty: that of all.
	Action     string
	Operations []AccessOperation
	Place      Place
}

// AccessOperation is about the calls of some paths.
type AccessOperation struct {
	// Path is one with wildcards, as it was written.
	Path string
	// Verbs are in upper case; "*" is any. Empty: none was given.
	Verbs []string
	// Action is Allow or Deny.
	Action string
	Place  Place // of the path
}

// SecretScope is one entry of spec.secrets.scopes.
type SecretScope struct {
	Store           string
	DefaultAccess   string // allow or deny
	Allowed, Denied []string
}

// APIs is spec.api: with any Allowed rule of a protocol, only what such rules
// name; never what a Denied rule names.
type APIs struct {
	Allowed, Denied []APIRule
}

// APIRule names a group of APIs, as in {publish, v1.0, http}.
type APIRule struct {
	Name, Version, Protocol string
}

// APILog is spec.logging.apiLogging.
type APILog struct {
	Enabled, ObfuscateURLs, OmitHealthChecks bool
}

// Pipeline is our own resource: a route without an app.
type Pipeline struct {
	Name        string
	From        Endpoint
	OrderingKey Expr
	Concurrency int // default 1 when OrderingKey is empty, else 16
	MaxInFlight int // zero: the default
	Dedupe      Dedupe
	Steps       []Step
	To          []Endpoint
	Retry       Retry
	Timeout     time.Duration // of one attempt at one target; default 60 s
	DeadLetter  *Endpoint
	Scopes      []string
	Place       Place
}

// Endpoint is one end of a pipeline. Exactly one of Binding, PubSub and Route
// is set.
type Endpoint struct {
	Binding   string
	Operation string            // of a binding
	Metadata  map[string]string // values are templates over the event
	PubSub    string
	Topic     string // a template over the event when it is a target
	Route     string // a path of the app
	Place     Place
	// NamePlace is that of the name, TopicPlace that of the topic.
	NamePlace, TopicPlace Place
	MetadataPlaces        map[string]Place // of the values
}

// Expr is the text of an expression and where it stands.
type Expr struct {
	Text  string
	Place Place
}

// Step is one step of a pipeline. Exactly one field is set.
type Step struct {
	Filter Expr            // CEL, boolean
	JQ     Expr            // jq program over the whole event; its result is the new data
	Set    map[string]Expr // attribute to CEL expression
	Enrich *Enrich
	Save   *Save
	Place  Place
}

// Enrich reads from a store into an event's data. Exactly one of Store and
// SecretStore is set.
type Enrich struct {
	Store       string // a state store
	SecretStore string
	StorePlace  Place  // of the name of either
	Key         Expr   // CEL
	As          string // the member of the data
}

// Save keeps an event's data in a state store.
type Save struct {
	Store      string
	StorePlace Place
	Key        Expr          // CEL
	JQ         Expr          // program whose result is kept instead of the data; may be empty
	TTL        time.Duration // zero: for ever
}

// DefaultRetries is how often a pipeline tries a target again, before it gives
// the event up, when its document does not say.
const DefaultRetries = 8

// Retry is a retry policy.
type Retry struct {
	Policy      string // "exponential" or "constant"; empty: the default
	Duration    time.Duration
	MaxInterval time.Duration
	MaxRetries  int // -1: for ever
	Place       Place
	Set         bool // whether the document has a retry block
}
