package trace

// The names of attributes: OpenTelemetry's conventions where they have one.
const (
	ErrorType = "error.type"

	HTTPMethod = "http.request.method"
	HTTPRoute  = "http.route"
	HTTPStatus = "http.response.status_code"

	RPCSystem = "rpc.system"
	RPCMethod = "rpc.method"
	RPCStatus = "rpc.grpc.status_code"

	MessagingSystem      = "messaging.system"
	MessagingDestination = "messaging.destination.name"
	MessagingOperation   = "messaging.operation.name"
	MessagingType        = "messaging.operation.type"
	MessagingID          = "messaging.message.id"
	MessagingCount       = "messaging.batch.message_count"

	Component = "penstock.component"
	Operation = "penstock.operation"
	Route     = "penstock.route"
	Target    = "penstock.target"
	Attempt   = "penstock.attempt"
	Outcome   = "penstock.outcome"
	AppID     = "penstock.app_id"
)
