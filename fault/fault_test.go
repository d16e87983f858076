package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
)

func TestKindSurvivesWrapping(t *testing.T) {
	t.Parallel()
	cause := errors.New("refused")
	err := fmt.Errorf("a: %w", fault.Wrap(fault.New(fault.Unavailable, "dial %s: %w", "host", cause), "open %s", "bus"))
	if fault.KindOf(err) != fault.Unavailable || !errors.Is(err, cause) {
		t.Errorf("%v has kind %v and is its cause: %v", err, fault.KindOf(err), errors.Is(err, cause))
	}
	if want := "a: open bus: dial host: refused"; err.Error() != want {
		t.Errorf("text is %q, want %q", err, want)
	}
	if fault.Wrap(nil, "open") != nil || fault.As(fault.Invalid, nil) != nil || fault.WithRetryAfter(nil, 1) != nil {
		t.Error("no error became one")
	}
}

func TestKindOfOtherErrors(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		err  error
		want fault.Kind
	}{
		{"deadline", context.DeadlineExceeded, fault.Timeout},
		{"file deadline", os.ErrDeadlineExceeded, fault.Timeout},
		{"cancelled", context.Canceled, fault.Unavailable},
		{"no file", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, fault.NotFound},
		{"file exists", fs.ErrExist, fault.Conflict},
		{"no permission", fs.ErrPermission, fault.Denied},
		{"network", &net.OpError{Op: "dial", Err: errors.New("refused")}, fault.Unavailable},
		{"a full disk", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, fault.Exhausted},
		{"a folder for a file", &fs.PathError{Op: "read", Path: "x", Err: syscall.EISDIR}, fault.Internal},
		{"refused", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, fault.Unavailable},
		{"anything", errors.New("x"), fault.Internal},
		{"the outermost counts", fault.As(fault.Denied, fault.New(fault.Invalid, "x")), fault.Denied},
	}
	for _, row := range rows {
		if got := fault.KindOf(row.err); got != row.want {
			t.Errorf("%s: kind %v, want %v", row.name, got, row.want)
		}
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	rows := []struct {
		kind      fault.Kind
		name      string
		http      int
		grpc      uint32
		retriable bool
	}{
		{fault.Internal, "internal", 500, 13, true},
		{fault.Invalid, "invalid", 400, 3, false},
		{fault.Denied, "denied", 403, 7, false},
		{fault.NotFound, "not found", 404, 5, false},
		{fault.Conflict, "conflict", 409, 10, false},
		{fault.Timeout, "timeout", 504, 4, true},
		{fault.Unavailable, "unavailable", 503, 14, true},
		{fault.Exhausted, "exhausted", 429, 8, true},
		{fault.Dropped, "dropped", 500, 10, false},
		{fault.Kind(99), "internal", 500, 13, true},
	}
	for _, row := range rows {
		k := row.kind
		if k.String() != row.name || k.HTTPStatus() != row.http || k.GRPCCode() != row.grpc || k.Retriable() != row.retriable {
			t.Errorf("%d is %s, %d, %d, %v; want %+v", k, k, k.HTTPStatus(), k.GRPCCode(), k.Retriable(), row)
		}
	}
}

func TestFromHTTPStatus(t *testing.T) {
	t.Parallel()
	want := map[int]fault.Kind{
		400: fault.Invalid, 401: fault.Denied, 403: fault.Denied, 404: fault.NotFound, 408: fault.Timeout, 409: fault.Conflict,
		410: fault.NotFound, 412: fault.Conflict, 422: fault.Invalid, 425: fault.Unavailable, 429: fault.Exhausted,
		500: fault.Internal, 502: fault.Unavailable, 503: fault.Unavailable, 504: fault.Timeout, 599: fault.Internal,
	}
	for status, kind := range want {
		if got := fault.FromHTTPStatus(status); got != kind {
			t.Errorf("%d is %v, want %v", status, got, kind)
		}
	}
}

func TestFromGRPCCode(t *testing.T) {
	t.Parallel()
	want := map[uint32]fault.Kind{
		0: fault.Internal, 1: fault.Unavailable, 2: fault.Internal, 3: fault.Invalid, 4: fault.Timeout, 5: fault.NotFound,
		6: fault.Conflict, 7: fault.Denied, 8: fault.Exhausted, 9: fault.Conflict, 10: fault.Conflict, 11: fault.Invalid,
		12: fault.Invalid, 13: fault.Internal, 14: fault.Unavailable, 15: fault.Internal, 16: fault.Denied, 99: fault.Internal,
	}
	for code, kind := range want {
		if got := fault.FromGRPCCode(code); got != kind {
			t.Errorf("%d is %v, want %v", code, got, kind)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	err := fault.Wrap(fault.WithRetryAfter(fault.New(fault.Exhausted, "full"), 3*time.Second), "publish")
	if fault.RetryAfter(err) != 3*time.Second || !fault.Retriable(err) {
		t.Errorf("after %v, retriable %v", fault.RetryAfter(err), fault.Retriable(err))
	}
	if fault.Retriable(nil) || fault.RetryAfter(errors.New("x")) != 0 {
		t.Error("nothing asked for a pause")
	}
}

func ExampleWrap() {
	err := fault.New(fault.Unavailable, "dial broker: connection refused")
	err = fault.Wrap(err, "open component %s", "bus")
	fmt.Println(err)
	fmt.Println(fault.KindOf(err), fault.Retriable(err))
	// Output:
	// open component bus: dial broker: connection refused
	// unavailable true
}
