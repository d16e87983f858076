package fault

import "net/http"

// Kind is the class of an error.
type Kind uint8

// The kinds. Internal is the zero value: an error of which nothing is known.
const (
	// Internal: ours or the other side's mistake; trying again may help.
	Internal Kind = iota
	// Invalid: the input is wrong and will stay wrong.
	Invalid
	// Denied: a rule or a missing credential forbids it.
	Denied
	// NotFound: the thing named does not exist.
	NotFound
	// Conflict: somebody else changed the thing first.
	Conflict
	// Timeout: it took longer than allowed; whether it happened is unknown.
	Timeout
	// Unavailable: the other side cannot be reached or is not ready.
	Unavailable
	// Exhausted: a limit is reached; waiting helps.
	Exhausted
	// Dropped: given up on purpose, by a rule or by the app.
	Dropped
)

// row is what one kind looks like from outside.
type row struct {
	name      string
	http      int
	grpc      uint32
	retriable bool
}

func (k Kind) row() row {
	// The gRPC numbers are those of google.golang.org/grpc/codes, which this
	// floor does not import.
	switch k {
	case Invalid:
		return row{"invalid", http.StatusBadRequest, 3, false}
	case Denied:
		return row{"denied", http.StatusForbidden, 7, false}
	case NotFound:
		return row{"not found", http.StatusNotFound, 5, false}
	case Conflict:
		return row{"conflict", http.StatusConflict, 10, false}
	case Timeout:
		return row{"timeout", http.StatusGatewayTimeout, 4, true}
	case Unavailable:
		return row{"unavailable", http.StatusServiceUnavailable, 14, true}
	case Exhausted:
		return row{"exhausted", http.StatusTooManyRequests, 8, true}
	case Dropped:
		return row{"dropped", http.StatusInternalServerError, 10, false}
	default:
		return row{"internal", http.StatusInternalServerError, 13, true}
	}
}

// String returns the word used in logs and metric labels.
func (k Kind) String() string { return k.row().name }

// HTTPStatus returns the status code that an HTTP API answers with.
func (k Kind) HTTPStatus() int { return k.row().http }

// GRPCCode returns the numeric gRPC status code.
func (k Kind) GRPCCode() uint32 { return k.row().grpc }

// Retriable tells whether doing the same again may succeed.
func (k Kind) Retriable() bool { return k.row().retriable }

// FromHTTPStatus returns the kind that an answer with this status means to us
// as a caller. Status codes below 400 have no kind; they return Internal.
func FromHTTPStatus(status int) Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return Denied
	case http.StatusNotFound, http.StatusGone:
		return NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return Conflict
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return Timeout
	case http.StatusTooEarly, http.StatusBadGateway, http.StatusServiceUnavailable:
		return Unavailable
	case http.StatusTooManyRequests:
		return Exhausted
	}
	if status >= 400 && status < 500 {
		return Invalid
	}
	return Internal
}

// FromGRPCCode returns the kind that an answer with this gRPC status code means
// to us as a caller. Zero, which is no error, returns Internal.
func FromGRPCCode(code uint32) Kind {
	switch code {
	case 1, 14: // Canceled, Unavailable
		return Unavailable
	case 3, 11, 12: // InvalidArgument, OutOfRange, Unimplemented
		return Invalid
	case 4: // DeadlineExceeded
		return Timeout
	case 5: // NotFound
		return NotFound
	case 6, 9, 10: // AlreadyExists, FailedPrecondition, Aborted
		return Conflict
	case 7, 16: // PermissionDenied, Unauthenticated
		return Denied
	case 8: // ResourceExhausted
		return Exhausted
	}
	return Internal
}
