package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// Problem is a class of errors as apps see them: one row of the table.
type Problem uint8

// The problems.
const (
	// Internal: a mistake of ours.
	Internal Problem = iota
	// PubSubEmpty: the request names no pub/sub.
	PubSubEmpty
	// PubSubNotFound: no pub/sub of that name.
	PubSubNotFound
	// PubSubNotConfigured: no pub/sub at all.
	PubSubNotConfigured
	// PubSubForbidden: the app may not use the topic.
	PubSubForbidden
	// TopicEmpty: the request names no topic.
	TopicEmpty
	// PublishMetadata: the metadata of a publish cannot be read.
	PublishMetadata
	// PublishEnvelope: no event can be made of the data.
	PublishEnvelope
	// PublishMessage: the broker did not take it.
	PublishMessage
	// Subscription: a stream cannot be served now; trying again helps.
	Subscription
	// BulkEvents: the body of a bulk publish cannot be read.
	BulkEvents
	// BulkEntries: the entries of a bulk publish cannot be told apart or are too
	// many.
	BulkEntries
	// InvokeBinding: calling an output binding came to nothing.
	InvokeBinding
	// SecretNotConfigured: no secret store at all.
	SecretNotConfigured
	// SecretNotFound: no secret store of that name.
	SecretNotFound
	// SecretGet: the store did not give the secret.
	SecretGet
	// PermissionDenied: a rule forbids it.
	PermissionDenied
	// Unauthenticated: the API token is missing or wrong.
	Unauthenticated
	// HealthNotReady: the instance is starting or stopping.
	HealthNotReady
	// HealthAppID: another app is served here.
	HealthAppID
	// OutboundNotReady: calls from the app are too early.
	OutboundNotReady
	// BodyRead: the request's body is too large or did not arrive.
	BodyRead
	// Malformed: the request's body is not what the API takes.
	Malformed
	// BadRequest: something else in the request is wrong.
	BadRequest
	// LogPartNotFound: no part of the log of that name.
	LogPartNotFound
	// RouteNotFound: no route of that name.
	RouteNotFound
	// TriggerNotFound: no input binding of that name has a schedule.
	TriggerNotFound
	// TriggerBusy: a tick is under way and must be alone.
	TriggerBusy
	// TriggerNotRead: nothing here reads the binding.
	TriggerNotRead
	// EventSelection: what says which events are meant cannot be used.
	EventSelection
	// LimitReached: a bound of ours is used up.
	LimitReached
	// Unimplemented: an API of Dapr's that this build lacks.
	Unimplemented
	// NotFound: no such API.
	NotFound
	// MethodNotAllowed: the API exists, under another method.
	MethodNotAllowed
	// APIDenied: spec.api of the Configuration takes the API away.
	APIDenied
	// DeadLetterNotFound: there is no dead letter of that id.
	DeadLetterNotFound
	// DeadLetterSelection: what says which dead letters cannot be used.
	DeadLetterSelection
	// DeadLetterStore: the file that keeps dead letters failed.
	DeadLetterStore
	// CryptoNotConfigured: no crypto component at all.
	CryptoNotConfigured
	// CryptoNotFound: no crypto component of that name.
	CryptoNotFound
	// Crypto: encrypting or decrypting came to nothing.
	Crypto
	// StateNotConfigured: no state store at all.
	StateNotConfigured
	// StateNotFound: no state store of that name.
	StateNotFound
	// StateKey: a key cannot be one.
	StateKey
	// StateGet, StateBulkGet: the store did not give the items.
	StateGet
	StateBulkGet
	// StateSave, StateDelete, StateBulkDelete: the store did not carry out all
	// changes; Invalid: one cannot be carried out; Conflict: an item has another
	// version than asked for.
	StateSave
	StateSaveInvalid
	StateSaveConflict
	StateDelete
	StateDeleteInvalid
	StateDeleteConflict
	StateBulkDelete
	StateBulkDeleteInvalid
	StateBulkDeleteConflict
	// StateTransaction: the store did not carry out the transaction.
	StateTransaction
	// StateNoTransactions: the store has none.
	StateNoTransactions
	// StateTooMany: the transaction is larger than the store takes.
	StateTooMany
	// StateOperation: the transaction asks for something else than upsert and
	// delete.
	StateOperation
	// StateNoKeys: the store cannot list its keys.
	StateNoKeys
	// StateQuery: the store did not answer the query.
	StateQuery
	// StateNoQueries: the store cannot search its values.
	StateNoQueries
	// LockNotConfigured: no lock store at all.
	LockNotConfigured
	// LockNotFound: no lock store of that name.
	LockNotFound
	// LockTry, LockRenew, LockUnlock: the store did not say whether it is done.
	LockTry
	LockRenew
	LockUnlock
	// ConfigurationNotConfigured: no configuration store at all.
	ConfigurationNotConfigured
	// ConfigurationNotFound: no configuration store of that name.
	ConfigurationNotFound
	// ConfigurationGet: the store did not give the items.
	ConfigurationGet
	// ConfigurationSubscribe: the store cannot be watched.
	ConfigurationSubscribe
	// ConfigurationUnsubscribe: there is no such subscription.
	ConfigurationUnsubscribe
	// AppChannel: there is no app to tell.
	AppChannel
	// InvokeNoTarget: a call of another app names none.
	InvokeNoTarget
	// InvokeInvalid: the target or the method of a call cannot be one.
	InvokeInvalid
	// InvokeDenied: the other side, or a rule here, refuses the call.
	InvokeDenied
	// InvokeFailed: the other app could not be reached.
	InvokeFailed
	// InvokeNoUpgrade: a WebSocket cannot get to where the call goes.
	InvokeNoUpgrade
	// InvokeUnreached: the other app's own gRPC service could not be reached.
	InvokeUnreached
)

// row is what a problem looks like from outside.
type row struct {
	code   string
	reason string // of the rich form; empty where Dapr has the legacy form only
	status int
	grpc   uint32
	kind   fault.Kind // of an error that has no cause with a kind of its own
}

// The gRPC numbers are those of google.golang.org/grpc/codes.
const (
	grpcInvalidArgument    = 3
	grpcNotFound           = 5
	grpcPermissionDenied   = 7
	grpcExhausted          = 8
	grpcFailedPrecondition = 9
	grpcAborted            = 10
	grpcUnimplemented      = 12
	grpcInternal           = 13
	grpcUnavailable        = 14
	grpcUnauthenticated    = 16
)

func (p Problem) row() row {
	switch {
	case p >= StateNotConfigured && p <= StateNoQueries:
		return stateRow(p)
	case p >= LockNotConfigured && p <= LockUnlock:
		return lockRow(p)
	case p >= ConfigurationNotConfigured && p <= AppChannel:
		return configurationRow(p)
	case p >= InvokeNoTarget && p <= InvokeUnreached:
		return invokeRow(p)
	}
	rows := [StateNotConfigured]row{
		Internal:            {"ERR_INTERNAL", "", 500, grpcInternal, fault.Internal},
		PubSubEmpty:         {"ERR_PUBSUB_EMPTY", "DAPR_PUBSUB_NAME_EMPTY", 404, grpcInvalidArgument, fault.NotFound},
		PubSubNotFound:      {"ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND", 404, grpcInvalidArgument, fault.NotFound},
		PubSubNotConfigured: {"ERR_PUBSUB_NOT_CONFIGURED", "DAPR_PUBSUB_NOT_CONFIGURED", 400, grpcFailedPrecondition, fault.Invalid},
		PubSubForbidden:     {"ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN", 403, grpcPermissionDenied, fault.Denied},
		TopicEmpty:          {"ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY", 404, grpcInvalidArgument, fault.NotFound},
		PublishMetadata:     {"ERR_PUBSUB_REQUEST_METADATA", "DAPR_PUBSUB_METADATA_DESERIALIZATION", 400, grpcInvalidArgument, fault.Invalid},
		PublishEnvelope:     {"ERR_PUBSUB_CLOUD_EVENTS_SER", "DAPR_PUBSUB_CLOUD_EVENT_CREATION", 500, grpcInvalidArgument, fault.Invalid},
		PublishMessage:      {"ERR_PUBSUB_PUBLISH_MESSAGE", "DAPR_PUBSUB_PUBLISH_MESSAGE", 500, grpcInternal, fault.Internal},
		Subscription:        {"ERR_PUBSUB_SUBSCRIBE", "", 503, grpcUnavailable, fault.Unavailable},
		BulkEvents:          {"ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_UNMARSHAL_EVENTS", 400, grpcInvalidArgument, fault.Invalid},
		BulkEntries:         {"ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_MARSHAL_EVENTS", 400, grpcInvalidArgument, fault.Invalid},
		InvokeBinding:       {"ERR_INVOKE_OUTPUT_BINDING", "", 500, grpcInternal, fault.Internal},
		SecretNotConfigured: {"ERR_SECRET_STORES_NOT_CONFIGURED", "", 500, grpcFailedPrecondition, fault.NotFound},
		SecretNotFound:      {"ERR_SECRET_STORE_NOT_FOUND", "", 401, grpcInvalidArgument, fault.NotFound},
		SecretGet:           {"ERR_SECRET_GET", "", 500, grpcInternal, fault.Internal},
		PermissionDenied:    {"ERR_PERMISSION_DENIED", "", 403, grpcPermissionDenied, fault.Denied},
		Unauthenticated:     {"ERR_UNAUTHENTICATED", "", 401, grpcUnauthenticated, fault.Denied},
		HealthNotReady:      {"ERR_HEALTH_NOT_READY", "", 500, grpcInternal, fault.Unavailable},
		HealthAppID:         {"ERR_HEALTH_APPID_NOT_MATCH", "", 500, grpcInternal, fault.NotFound},
		OutboundNotReady:    {"ERR_OUTBOUND_HEALTH_NOT_READY", "", 500, grpcInternal, fault.Unavailable},
		BodyRead:            {"ERR_BODY_READ", "", 400, grpcInvalidArgument, fault.Invalid},
		Malformed:           {"ERR_MALFORMED_REQUEST", "", 400, grpcInvalidArgument, fault.Invalid},
		BadRequest:          {"ERR_BAD_REQUEST", "", 400, grpcInvalidArgument, fault.Invalid},
		LogPartNotFound:     {"ERR_LOG_PART_NOT_FOUND", "", 404, grpcNotFound, fault.NotFound},
		RouteNotFound:       {"ERR_ROUTE_NOT_FOUND", "", 404, grpcNotFound, fault.NotFound},
		TriggerNotFound:     {"ERR_TRIGGER_NOT_FOUND", "", 404, grpcNotFound, fault.NotFound},
		TriggerBusy:         {"ERR_TRIGGER_BUSY", "", 409, grpcAborted, fault.Conflict},
		TriggerNotRead:      {"ERR_TRIGGER_NOT_READ", "", 503, grpcUnavailable, fault.Unavailable},
		EventSelection:      {"ERR_EVENT_SELECTION", "", 400, grpcInvalidArgument, fault.Invalid},
		LimitReached:        {"ERR_LIMIT_REACHED", "", 429, grpcExhausted, fault.Exhausted},
		Unimplemented:       {"ERR_API_UNIMPLEMENTED", "", 501, grpcUnimplemented, fault.NotFound},
		NotFound:            {"ERR_NOT_FOUND", "", 404, grpcNotFound, fault.NotFound},
		MethodNotAllowed:    {"ERR_METHOD_NOT_ALLOWED", "", 405, grpcUnimplemented, fault.Invalid},
		APIDenied:           {"ERR_API_DENIED", "", 404, grpcUnimplemented, fault.Denied},
		DeadLetterNotFound:  {"ERR_DEAD_LETTER_NOT_FOUND", "", 404, grpcNotFound, fault.NotFound},
		DeadLetterSelection: {"ERR_DEAD_LETTER_SELECTION", "", 400, grpcInvalidArgument, fault.Invalid},
		DeadLetterStore:     {"ERR_DEAD_LETTER_STORE", "", 503, grpcUnavailable, fault.Unavailable},
		CryptoNotConfigured: {"ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", "", 500, grpcInternal, fault.NotFound},
		CryptoNotFound:      {"ERR_CRYPTO_PROVIDER_NOT_FOUND", "", 400, grpcInvalidArgument, fault.NotFound},
		Crypto:              {"ERR_CRYPTO", "", 500, grpcInternal, fault.Internal},
	}
	if p >= StateNotConfigured {
		p = Internal
	}
	return rows[p]
}

// Code returns Dapr's legacy error code: "ERR_PUBSUB_NOT_FOUND".
func (p Problem) Code() string { return p.row().code }

// Category returns Dapr's word for what the code is about: "pubsub".
func (p Problem) Category() string {
	code := p.Code()
	for _, c := range [][2]string{
		{"ERR_STATE_", "state"},
		{"ERR_CONFIGURATION_", "configuration"},
		{"ERR_CRYPTO", "crypto"},
		{"ERR_SECRET_", "secret"},
		{"ERR_PERMISSION_DENIED", "secret"},
		{"ERR_PUBSUB_", "pubsub"},
		{"ERR_TOPIC_NAME_EMPTY", "pubsub"},
		{"ERR_PUBLISH_OUTBOX", "pubsub"},
		{"ERR_DIRECT_INVOKE", "service-invocation"},
		{"ERR_INVOKE_OUTPUT_BINDING", "binding"},
		{"ERR_HEALTH_", "health"},
		{"ERR_OUTBOUND_HEALTH_", "health"},
		{"ERR_LOCK_", "lock"},
		{"ERR_TRY_LOCK", "lock"},
		{"ERR_UNLOCK", "lock"},
	} {
		if strings.HasPrefix(code, c[0]) {
			return c[1]
		}
	}
	return "common"
}

// Reason returns the reason of the rich form: "DAPR_PUBSUB_NOT_FOUND". It is
// empty where Dapr has no rich form.
func (p Problem) Reason() string { return p.row().reason }

// HTTPStatus returns the status code of the HTTP API.
func (p Problem) HTTPStatus() int { return p.row().status }

// GRPCCode returns the numeric status code of the gRPC API.
func (p Problem) GRPCCode() uint32 { return p.row().grpc }

// Error is an error as an app sees it.
type Error struct {
	// Problem is the row of the table.
	Problem Problem
	// Message is for people.
	Message string
	// ResourceType and ResourceName say what the request was about: "pubsub"
	// and a component's name. Both empty when it is about none.
	ResourceType, ResourceName string
	// Metadata is more about it: appID, topic. May be nil.
	Metadata map[string]string

	cause error
}

// Errorf makes an error. The format takes %w like [fmt.Errorf].
func Errorf(p Problem, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Problem: p, Message: err.Error(), cause: errors.Unwrap(err)}
	if e.cause == nil {
		e.cause = fault.As(p.row().kind, err)
	}
	return e
}

// wrap makes err an error of p, keeping its text.
func wrap(p Problem, err error) *Error {
	return &Error{Problem: p, Message: err.Error(), cause: err}
}

// AsError returns err as an [*Error]; one that is none is Internal.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return wrap(Internal, err)
}

func (e *Error) on(kind, name string) *Error {
	e.ResourceType, e.ResourceName = kind, name
	return e
}

func (e *Error) with(key, value string) *Error {
	if e.Metadata == nil {
		e.Metadata = map[string]string{}
	}
	e.Metadata[key] = value
	return e
}

// maxEcho bounds what of a request an error repeats, in bytes: over gRPC it
// travels as headers.
const maxEcho = 1 << 10

// echo adds what the caller sent, unless that is much.
func (e *Error) echo(sent map[string]string) *Error {
	size := 0
	for k, v := range sent {
		size += len(k) + len(v)
	}
	if size > maxEcho {
		return e
	}
	for k, v := range sent {
		e = e.with(k, v)
	}
	return e
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause, which has a kind.
func (e *Error) Unwrap() error { return e.cause }

// Domain is the domain of the rich form's error info.
const Domain = "dapr.io"

// The type names of the rich form's details.
const (
	errorInfoType    = "type.googleapis.com/google.rpc.ErrorInfo"
	resourceInfoType = "type.googleapis.com/google.rpc.ResourceInfo"
)

type errorInfo struct {
	Type     string            `json:"@type"`
	Reason   string            `json:"reason"`
	Domain   string            `json:"domain"`
	Metadata map[string]string `json:"metadata"`
}

type resourceInfo struct {
	Type         string `json:"@type"`
	ResourceType string `json:"resource_type"`
	ResourceName string `json:"resource_name"`
	Owner        string `json:"owner"`
	Description  string `json:"description"`
}

// MarshalJSON writes the body of the HTTP API: errorCode and message, and the
// details of the rich form where Dapr has one.
func (e *Error) MarshalJSON() ([]byte, error) {
	r := e.Problem.row()
	body := struct {
		Code    string `json:"errorCode"`
		Message string `json:"message"`
		Details []any  `json:"details,omitempty"`
	}{Code: r.code, Message: e.Message}
	if r.reason != "" {
		info := errorInfo{Type: errorInfoType, Reason: r.reason, Domain: Domain, Metadata: e.Metadata}
		if info.Metadata == nil {
			info.Metadata = map[string]string{}
		}
		body.Details = append(body.Details, info)
		if e.ResourceType != "" {
			body.Details = append(body.Details, resourceInfo{
				Type: resourceInfoType, ResourceType: e.ResourceType, ResourceName: e.ResourceName, Description: e.Message,
			})
		}
	}
	return json.Marshal(body)
}
