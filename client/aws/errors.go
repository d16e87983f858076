package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/penstock-io/penstock/fault"
)

// Wrap gives an error of the SDK a kind and the words "verb object" in front. It
// keeps of it what a person needs: code, message and the request's id. Nil
// stays nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	words := fmt.Sprintf(format, args...)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		kind := fault.Unavailable
		if errors.Is(err, context.DeadlineExceeded) {
			kind = fault.Timeout
		}
		return fault.As(kind, fmt.Errorf("%s: %w", words, plain(err)))
	}
	out := fault.New(kind(err), "%s: %w", words, plain(err))
	if after := retryAfter(err); after > 0 {
		out = fault.WithRetryAfter(out, after)
	}
	return out
}

// KindOfCode returns the kind that an error code of any service means, for the
// entries of a batch that failed alone. Ours says that the caller is to blame.
func KindOfCode(code string, ours bool) fault.Kind {
	if k, ok := known(code); ok {
		return k
	}
	if ours {
		return fault.Invalid
	}
	return fault.Unavailable
}

// Missing tells whether an error says that the thing asked for does not exist.
func Missing(err error) bool { return err != nil && fault.KindOf(err) == fault.NotFound }

// readable is an error with a text for people; it keeps the chain.
type readable struct {
	text  string
	cause error
}

func (r *readable) Error() string { return r.text }

func (r *readable) Unwrap() error { return r.cause }

// plain makes the text of an error short.
func plain(err error) error {
	text := err.Error()
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		text = api.ErrorCode()
		if m := strings.TrimSpace(api.ErrorMessage()); m != "" && m != text {
			text += ": " + m
		}
		if re, ok := errors.AsType[*awshttp.ResponseError](err); ok && re.RequestID != "" {
			text += " (request " + re.RequestID + ")"
		}
	} else if op, ok := errors.AsType[*smithy.OperationError](err); ok && op.Err != nil {
		text = op.Err.Error()
	}
	return &readable{oneLine(text), err}
}

const textLimit = 1000

// oneLine makes a text fit behind a colon.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > textLimit {
		text = text[:textLimit] + "..."
	}
	return strings.TrimRight(text, ".")
}

func kind(err error) fault.Kind {
	status := 0
	if re, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = re.HTTPStatusCode()
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if k, ok := known(api.ErrorCode()); ok {
			return k
		}
		if status == 0 && api.ErrorFault() == smithy.FaultClient {
			return fault.Invalid
		}
	}
	switch {
	case status >= http.StatusInternalServerError:
		return fault.Unavailable
	case status >= http.StatusMultipleChoices:
		return fault.FromHTTPStatus(max(status, http.StatusBadRequest))
	case isInvalidInput(err):
		return fault.Invalid
	}
	if k := fault.KindOf(err); k == fault.Timeout {
		return k
	}
	// The network, a connection that broke in the middle of an answer, or
	// credentials that could not be fetched: none is for ever.
	return fault.Unavailable
}

// isInvalidInput tells whether the SDK refused the input before sending it.
func isInvalidInput(err error) bool {
	_, params := errors.AsType[smithy.InvalidParamsError](err)
	_, pointer := errors.AsType[*smithy.InvalidParamsError](err)
	_, serial := errors.AsType[*smithy.SerializationError](err)
	return params || pointer || serial
}

// known returns the kind of codes that the status says too little about.
func known(code string) (fault.Kind, bool) {
	if i := strings.LastIndexByte(code, '#'); i >= 0 {
		code = code[i+1:]
	}
	code = strings.TrimPrefix(code, "AWS.SimpleQueueService.")
	switch code {
	case "Throttling", "ThrottlingException", "ThrottledException", "Throttled", "RequestThrottled", "RequestThrottledException",
		"TooManyRequestsException", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "BandwidthLimitExceeded",
		"LimitExceededException", "SlowDown", "PriorRequestNotComplete", "OverLimit", "KmsThrottled", "KMSThrottlingException":
		return fault.Exhausted, true
	case "AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException", "UnrecognizedClientException",
		"InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException", "NotAuthorized", "AuthFailure", "InvalidSecurity",
		"KmsAccessDenied", "KMSAccessDeniedException", "InvalidSignatureException", "IncompleteSignature":
		return fault.Denied, true
	case "QueueDoesNotExist", "NonExistentQueue", "NotFound", "NotFoundException", "ResourceNotFoundException", "NoSuchKey", "NoSuchBucket", "NoSuchEntity",
		"ParameterNotFound", "ParameterVersionNotFound":
		return fault.NotFound, true
	case "ConditionalCheckFailedException", "TransactionConflictException", "ResourceInUseException", "OperationAborted":
		return fault.Conflict, true
	case "RequestTimeout", "RequestTimeoutException":
		return fault.Timeout, true
	case "QueueDeletedRecently", "InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "RequestExpired", "RequestTimeTooSkewed":
		return fault.Unavailable, true
	}
	return 0, false
}

// BadCredentials tells whether an error says that the credentials themselves are
// wrong, not that they may not do one thing.
func BadCredentials(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	switch api.ErrorCode() {
	case "UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException",
		"InvalidAccessKeyId", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "InvalidSignatureException", "IncompleteSignature":
		return true
	}
	return false
}

// Reached says what the answer to a first question tells about a server: nil
// when it answered at all. A thing that does not exist, or may not be asked for,
// is no reason not to open; wrong credentials and a server that cannot be
// reached are.
func Reached(err error) error {
	if err == nil || BadCredentials(err) {
		return err
	}
	if _, answered := errors.AsType[smithy.APIError](err); answered && !fault.Retriable(err) {
		return nil
	}
	return err
}

// retryAfter reads how long the service asks to wait.
func retryAfter(err error) time.Duration {
	re, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || re.Response == nil || re.Response.Response == nil {
		return 0
	}
	if ms, err := strconv.Atoi(re.Response.Header.Get("x-amz-retry-after")); err == nil && ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	v := re.Response.Header.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
