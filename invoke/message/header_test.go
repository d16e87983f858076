package message

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

func TestCleanLeavesNothingOfOneConnection(t *testing.T) {
	t.Parallel()
	h := http.Header{
		"Connection": {"keep-alive, x-private", "X-Other"}, "Keep-Alive": {"timeout=5"}, "Te": {"trailers"}, "Trailer": {"Authorization"},
		"Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"}, "Proxy-Authorization": {"x"}, "Proxy-Connection": {"x"},
		"Content-Length": {"7"}, "Expect": {"100-continue"}, "Host": {"evil.test"}, "Dapr-Api-Token": {"secret"}, "Dapr-App-Id": {"b"},
		"X-Private": {"1"}, "X-Other": {"2"}, "X-Kept": {"3"}, "Authorization": {"Bearer x"}, "Content-Type": {"text/plain"},
	}
	Clean(h)
	want := http.Header{"X-Kept": {"3"}, "Authorization": {"Bearer x"}, "Content-Type": {"text/plain"}}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
}

func TestMetadataAndHeaders(t *testing.T) {
	t.Parallel()
	h := FromMetadata(metadata.MD{
		"content-type": {"application/grpc"}, ":authority": {"x:1"}, "grpc-timeout": {"1S"}, "grpc-trace-bin": {"\x00\x01"},
		"te": {"trailers"}, "x-a": {"1", "2"}, "dapr-api-token": {"secret"},
	})
	want := http.Header{"Dapr-Authority": {"x:1"}, "Dapr-Grpc-Timeout": {"1S"}, "Grpc-Trace-Bin": {"\x00\x01"}, "X-A": {"1", "2"}}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
	web := http.Header{"Accept": {"*/*"}, "X-A": {"1"}, "Grpc-Status": {"5"}, "Content-Type": {"text/plain"}, "Bad Name": {"x"}, "X-Line": {"a\nb"}, "Cookie": {"c"}}
	if diff := cmp.Diff(metadata.MD{"dapr-accept": {"*/*"}, "x-a": {"1"}, "dapr-cookie": {"c"}, "dapr-content-type": {"text/plain"}}, Metadata(web, false)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(metadata.MD{"accept": {"*/*"}}, Metadata(http.Header{"Accept": {"*/*"}}, true)); diff != "" {
		t.Error(diff)
	}
}

func TestStatusesAreDaprs(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]codes.Code{
		200: 0, 204: 0, 301: codes.Unknown, 400: codes.Internal, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.NotFound,
		408: codes.Canceled, 409: codes.AlreadyExists, 418: codes.Unknown, 429: codes.ResourceExhausted, 500: codes.Unknown,
		501: codes.Unimplemented, 503: codes.Unavailable, 504: codes.DeadlineExceeded,
	} {
		if got := Code(status); got != code {
			t.Errorf("%d: %s, want %s", status, got, code)
		}
	}
	for code, status := range map[codes.Code]int{
		0: 200, codes.Canceled: 408, codes.Unknown: 500, codes.InvalidArgument: 400, codes.NotFound: 404, codes.Aborted: 409,
		codes.ResourceExhausted: 429, codes.FailedPrecondition: 400, codes.Unimplemented: 501, codes.DataLoss: 500, codes.Unauthenticated: 401,
	} {
		if got := HTTPStatus(code); got != status {
			t.Errorf("%s: %d, want %d", code, got, status)
		}
	}
	long := make([]byte, 500)
	for i := range long {
		long[i] = 'x'
	}
	s := StatusOf(404, string(long))
	info, ok := s.Details()[0].(*errdetails.ErrorInfo)
	if s.Code() != codes.NotFound || s.Message() != "Not Found" || !ok || info.Reason != "Not Found" || info.Domain != "dapr.io" ||
		info.Metadata["http.code"] != "404" || len(info.Metadata["http.error_message"]) != 63 {
		t.Errorf("%v", s.Proto())
	}
}
