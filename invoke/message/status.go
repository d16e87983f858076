package message

import (
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// HTTPStatus returns the HTTP status that a gRPC code stands for, in Dapr's table.
func HTTPStatus(c codes.Code) int {
	switch c {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return http.StatusRequestTimeout
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Code returns the gRPC code that an HTTP status stands for, in Dapr's table,
// which is not the other one read backwards.
func Code(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusRequestTimeout:
		return codes.Canceled
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	if httpStatus >= 200 && httpStatus < 300 {
		return codes.OK
	}
	return codes.Unknown
}

// maxDetail is how much of a body an error detail repeats, in bytes.
const maxDetail = 63

// StatusOf returns the gRPC status of an HTTP status that is no success, with
// Dapr's details: the status and the beginning of the body.
func StatusOf(httpStatus int, body string) *status.Status {
	text := http.StatusText(httpStatus)
	s := status.New(Code(httpStatus), text)
	with, err := s.WithDetails(&errdetails.ErrorInfo{
		Reason: text, Domain: "dapr.io",
		Metadata: map[string]string{"http.code": strconv.Itoa(httpStatus), "http.error_message": valid(body)},
	})
	if err != nil { // such as for OK, which has no details
		return s
	}
	return with
}

// valid returns the beginning of a body as a text that a message may hold.
func valid(body string) string {
	return strings.ToValidUTF8(body[:min(len(body), maxDetail)], "")
}
