package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/port"
)

func TestEventOutcomes(t *testing.T) {
	t.Parallel()
	after := func(s string) metadata.MD { return metadata.Pairs("retry-after", s) }
	code := func(c codes.Code) error { return status.Error(c, "no\nway") }
	rows := []struct {
		name string
		app  *fake
		want string
	}{
		{"success", says(rtv1.TopicEventResponse_SUCCESS, nil, after("9")), "ack"},
		{"retry", says(rtv1.TopicEventResponse_RETRY, nil, nil), "retry (unavailable)"},
		{"retry after", says(rtv1.TopicEventResponse_RETRY, nil, after("30s")), "retry (unavailable) after 30s"},
		{"retry after seconds", says(rtv1.TopicEventResponse_RETRY, nil, after("2")), "retry (unavailable) after 2s"},
		{"retry after too long", says(rtv1.TopicEventResponse_RETRY, nil, after("1e300")), "retry (unavailable) after 1h0m0s"},
		{"retry after nonsense", says(rtv1.TopicEventResponse_RETRY, nil, after("soon")), "retry (unavailable)"},
		{"drop", says(rtv1.TopicEventResponse_DROP, nil, nil), "drop (dropped)"},
		{"unknown status", says(42, nil, nil), "retry (internal)"},
		{"unimplemented", says(0, code(codes.Unimplemented), nil), "drop, no letter (invalid)"},
		{"no handlers", &fake{}, "drop, no letter (invalid)"},
		{"unknown", says(0, errors.New("plain"), nil), "retry (internal)"},
		{"invalid", says(0, code(codes.InvalidArgument), nil), "retry (invalid)"},
		{"not found", says(0, code(codes.NotFound), nil), "retry (not found)"},
		{"denied", says(0, code(codes.PermissionDenied), nil), "retry (denied)"},
		{"unauthenticated", says(0, code(codes.Unauthenticated), nil), "retry (denied)"},
		{"aborted", says(0, code(codes.Aborted), nil), "retry (conflict)"},
		{"exhausted", says(0, code(codes.ResourceExhausted), after("5s")), "retry (exhausted) after 5s"},
		{"said unavailable, which is a try", says(0, code(codes.Unavailable), nil), "retry (unavailable)"},
		{"said cancelled", says(0, code(codes.Canceled), nil), "retry (unavailable)"},
		{"said deadline", says(0, code(codes.DeadlineExceeded), nil), "retry (timeout)"},
		{"internal", says(0, code(codes.Internal), nil), "retry (internal)"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			o := connect(t, appgrpc.Options{}, r.app).Event(t.Context(), orders, delivery(t, 1), time.Minute)
			if got := short(o); got != r.want {
				t.Errorf("outcome = %s, want %s (%v)", got, r.want, o.Err)
			}
			if o.Verdict != cloudevents.Ack && o.Reason == "" {
				t.Error("no reason")
			}
		})
	}
}

// TestPoliciesSeeTheCode holds that a retry policy can be narrowed to codes of
// an app that speaks gRPC.
func TestPoliciesSeeTheCode(t *testing.T) {
	t.Parallel()
	c := connect(t, appgrpc.Options{}, says(0, status.Error(codes.ResourceExhausted, "busy"), nil))
	o := c.Event(t.Context(), orders, delivery(t, 1), time.Minute)
	busy := resilience.Retry{Limit: 1, Codes: &resilience.Codes{GRPC: []resilience.Range{{From: 8, To: 8}}}}
	gone := resilience.Retry{Limit: 1, Codes: &resilience.Codes{GRPC: []resilience.Range{{From: 14, To: 14}}}}
	if busy.Refuses(o.Err) || !gone.Refuses(o.Err) {
		t.Errorf("the code of %v is not seen", o.Err)
	}
}

// An app whose clock is a little ahead ends a call that takes too long before we
// do. Whichever comes first, it is a time-out of ours, which a policy for codes
// does not judge.
func TestATimeOutHasNoCode(t *testing.T) {
	t.Parallel()
	c := connect(t, appgrpc.Options{}, says(0, status.Error(codes.DeadlineExceeded, "over"), nil))
	o := c.Event(t.Context(), orders, delivery(t, 1), 40*time.Millisecond)
	gone := resilience.Retry{Limit: 1, Codes: &resilience.Codes{GRPC: []resilience.Range{{From: 14, To: 14}}}}
	if gone.Refuses(o.Err) || short(o) != "retry (timeout)" {
		t.Errorf("outcome = %s (%v)", short(o), o.Err)
	}
	if o = c.Event(t.Context(), orders, delivery(t, 1), time.Minute); !gone.Refuses(o.Err) {
		t.Errorf("the app's own code is not seen in %v", o.Err)
	}
}

func TestRetryAfterInTheHeader(t *testing.T) {
	t.Parallel()
	c := connect(t, appgrpc.Options{}, &fake{event: func(ctx context.Context, _ *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		_ = grpc.SendHeader(ctx, metadata.Pairs("Retry-After", "3s"))
		return &rtv1.TopicEventResponse{Status: rtv1.TopicEventResponse_RETRY}, nil
	}})
	if got := short(c.Event(t.Context(), orders, delivery(t, 1), 0)); got != "retry (unavailable) after 3s" {
		t.Errorf("outcome = %s", got)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	c := dial(t, "127.0.0.1:1", appgrpc.Options{})
	const want = "retry (unavailable), no try"
	if o := c.Event(t.Context(), orders, delivery(t, 1), time.Minute); short(o) != want || !strings.Contains(o.Reason, "refused") {
		t.Errorf("event: %s: %s", short(o), o.Reason)
	}
	if _, o := c.Binding(t.Context(), orders, delivery(t, 1), time.Minute); short(o) != want {
		t.Errorf("binding: %s", short(o))
	}
	for _, o := range c.Bulk(t.Context(), orders, []*cloudevents.Delivery{delivery(t, 1), delivery(t, 2)}, time.Minute) {
		if short(o) != want {
			t.Errorf("bulk: %s", short(o))
		}
	}
	if c.Reach(t.Context()) == nil {
		t.Error("reached an app that does not listen")
	}
}

// never is an app that answers when the caller is gone.
func never(begun chan<- struct{}) *fake {
	return &fake{event: func(ctx context.Context, _ *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
}

func TestTimeoutAndCancel(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 10)
	c := connect(t, appgrpc.Options{}, never(begun))
	if got := short(c.Event(t.Context(), orders, delivery(t, 1), 50*time.Millisecond)); got != "retry (timeout)" {
		t.Errorf("time-out: %s", got)
	}
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if got := short(c.Event(ctx, orders, delivery(t, 1), time.Minute)); got != "leave" {
		t.Errorf("cancelled: %s", got)
	}
}

func TestAppDiesMidWay(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 1)
	address, stop := start(t, "127.0.0.1:0", []any{never(begun)})
	c := dial(t, address, appgrpc.Options{})
	go func() { <-begun; stop() }()
	// It may have done it: that is a try.
	if got := short(c.Event(t.Context(), orders, delivery(t, 1), time.Minute)); got != "retry (unavailable)" {
		t.Errorf("outcome = %s", got)
	}
}

// TestDownAndBack lets deliveries go on at once after the app is back, whatever
// pause the connection was in.
func TestDownAndBack(t *testing.T) {
	t.Parallel()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + itoa(p)
	c := dial(t, address, appgrpc.Options{})
	a := app.New(app.Options{Channel: c})
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(ended); _ = a.RunHealth(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	for range 3 {
		for range 10 { // the pauses grow
			if got := short(a.Event(t.Context(), orders, delivery(t, 1))); got != "retry (unavailable), no try" {
				t.Fatalf("down: %s", got)
			}
		}
		if a.Healthy() {
			t.Fatal("the gate is open while the app is down")
		}
		_, stop := start(t, address, []any{says(0, nil, nil)})
		back := time.Now()
		for tries := 1; ; tries++ {
			if err := a.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			if a.Event(t.Context(), orders, delivery(t, 1)).Verdict == cloudevents.Ack {
				t.Logf("on after %v and %d tries", time.Since(back), tries)
				break
			}
		}
		if took := time.Since(back); took > 10*time.Second {
			t.Errorf("deliveries went on after %s", took)
		}
		stop()
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	var got metadata.MD
	c := connect(t, appgrpc.Options{Token: "secret"}, &fake{event: func(ctx context.Context, _ *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		return &rtv1.TopicEventResponse{}, nil
	}})
	d := delivery(t, 1)
	d.Event = scan(t, `{"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"`+parent+`","tracestate":"a=b","baggage":"k=v","data":1}`)
	d.Metadata = map[string]string{
		"Partition": "7", "note": "ä\r\n%", "bad name": "x", "ü": "x", "": "x", "grpc-timeout": "1n", "grpc-status": "13",
		":path": "/evil", "content-type": "text/html", "te": "x", "connection": "close", "host": "evil", "content-length": "5",
		"dapr-api-token": "forged", "traceparent": "forged", "user-agent": "forged", "raw-bin": "\x00\xff", "long": strings.Repeat("x", 9000),
	}
	if o := c.Event(t.Context(), orders, d, time.Minute); o.Verdict != cloudevents.Ack {
		t.Fatal(o)
	}
	trace := got["traceparent"]
	if len(trace) != 1 || cloudevents.TraceID(trace[0]) != cloudevents.TraceID(parent) || trace[0] == parent {
		t.Errorf("traceparent = %s, want a child of %s", trace, parent)
	}
	if b := got["grpc-trace-bin"]; len(b) != 1 || len(b[0]) != 29 || !strings.HasSuffix(b[0], "\x02\x01") || !strings.HasPrefix(b[0], "\x00\x00\x4b\xf9") {
		t.Errorf("grpc-trace-bin = %q", b)
	}
	if agent := got["user-agent"]; len(agent) != 1 || !strings.HasPrefix(agent[0], "penstock") {
		t.Errorf("user-agent = %q", agent)
	}
	for _, name := range []string{"traceparent", "grpc-trace-bin", "user-agent", ":authority", "content-type", "grpc-accept-encoding"} {
		delete(got, name)
	}
	want := metadata.MD{
		"dapr-api-token": {"secret"}, "tracestate": {"a=b"}, "baggage": {"k=v"},
		"partition": {"7"}, "note": {"%C3%A4%0D%0A%25"}, "raw-bin": {"\x00\xff"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

// TestManyMetadata has a server that takes what most take and no more.
func TestManyMetadata(t *testing.T) {
	t.Parallel()
	var got metadata.MD
	address, _ := start(t, "127.0.0.1:0", []any{&fake{event: func(ctx context.Context, _ *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		return &rtv1.TopicEventResponse{}, nil
	}}}, grpc.MaxHeaderListSize(8<<10))
	c := dial(t, address, appgrpc.Options{Token: strings.Repeat("t", 100)})
	d := delivery(t, 1)
	d.Event = scan(t, `{"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"`+parent+
		`","tracestate":"`+strings.Repeat("s", 512)+`","baggage":"`+strings.Repeat("b", 1024)+`","data":1}`)
	many, long := map[string]string{"zz": "last"}, map[string]string{"a": strings.Repeat("x", 6000), "b": "kept"}
	for i := range 5000 {
		many["name"+itoa(i)] = "x"
	}
	binary, foreign := map[string]string{}, map[string]string{}
	for i := range 20 {
		binary[itoa(i)+"-bin"] = strings.Repeat("\xff", 220)
		foreign[itoa(i)] = strings.Repeat("ä", 110)
	}
	for name, m := range map[string]map[string]string{"many": many, "long": long, "binary": binary, "foreign": foreign} {
		d.Metadata = m
		if o := c.Event(t.Context(), orders, d, time.Minute); o.Verdict != cloudevents.Ack {
			t.Errorf("%s: %s: %v", name, short(o), o.Err)
		}
		if name == "long" && (len(got["a"]) != 0 || len(got["b"]) != 1) {
			t.Errorf("metadata = %v, want the long one left out", got)
		}
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	var got *rtv1.BindingEventRequest
	var reply *rtv1.BindingEventResponse
	c := connect(t, appgrpc.Options{}, &fake{binding: func(_ context.Context, r *rtv1.BindingEventRequest) (*rtv1.BindingEventResponse, error) {
		got = r
		return reply, nil
	}})
	to := &app.Address{Path: "/in", Binding: "github"}
	d := delivery(t, 1)
	d.Metadata = map[string]string{"file": "a\xffb", "ok": "ä"}
	want := &rtv1.BindingEventRequest{Name: "github", Data: []byte("hello 1"), Metadata: map[string]string{"file": "a%FFb", "ok": "ä"}}
	rows := []struct {
		name string
		in   *rtv1.BindingEventResponse
		want *app.Reply
	}{
		{"nothing", &rtv1.BindingEventResponse{Data: []byte("x")}, nil},
		{
			"outputs", &rtv1.BindingEventResponse{To: []string{"a", "b"}, Data: []byte(`{"x": 1}`), Concurrency: rtv1.BindingEventResponse_PARALLEL},
			&app.Reply{To: []string{"a", "b"}, Data: []byte(`{"x": 1}`), Concurrency: "parallel", Operation: "create"},
		},
		{
			"states", &rtv1.BindingEventResponse{StoreName: "s", States: []*commonv1.StateItem{{
				Key: "k", Value: []byte("[1]"), Etag: &commonv1.Etag{Value: "7"}, Metadata: map[string]string{"ttlInSeconds": "5"},
				Options: &commonv1.StateOptions{Concurrency: commonv1.StateOptions_CONCURRENCY_FIRST_WRITE, Consistency: commonv1.StateOptions_CONSISTENCY_STRONG},
			}}},
			&app.Reply{StoreName: "s", Operation: "create", State: []state.Change{{
				Key: "k", Value: []byte("[1]"), ETag: new("7"), Metadata: map[string]string{"ttlInSeconds": "5"},
				Binary: true, FirstWrite: true, Strong: true,
			}}},
		},
	}
	for _, r := range rows {
		reply = r.in
		var told []byte
		d.Answer = func(_ string, data []byte) { told = data }
		answer, o := c.Binding(t.Context(), to, d, time.Minute)
		if o.Verdict != cloudevents.Ack {
			t.Errorf("%s: %s", r.name, short(o))
		}
		if string(told) != string(r.in.GetData()) {
			t.Errorf("%s: the source is told %q, want the data %q", r.name, told, r.in.GetData())
		}
		if diff := cmp.Diff(r.want, answer); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.name, diff)
		}
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if _, o := c.Binding(t.Context(), to, &cloudevents.Delivery{Body: []byte("raw")}, time.Minute); o.Verdict != cloudevents.Ack || string(got.GetData()) != "raw" {
		t.Errorf("without an event: %s, %q", short(o), got.GetData())
	}
}

func TestBindingFails(t *testing.T) {
	t.Parallel()
	c := connect(t, appgrpc.Options{}, &fake{})
	if reply, o := c.Binding(t.Context(), orders, delivery(t, 1), time.Minute); reply != nil || short(o) != "retry (invalid)" {
		t.Errorf("unimplemented: %v, %s", reply, short(o))
	}
}

// TestBigMessages sends more than gRPC's usual limit and bounds what comes back.
func TestBigMessages(t *testing.T) {
	t.Parallel()
	answer := make([]byte, 100)
	address, _ := start(t, "127.0.0.1:0", []any{&fake{
		binding: func(_ context.Context, r *rtv1.BindingEventRequest) (*rtv1.BindingEventResponse, error) {
			if len(r.GetData()) != 10<<20 {
				return nil, status.Error(codes.DataLoss, "cut")
			}
			return &rtv1.BindingEventResponse{To: []string{"x"}, Data: answer}, nil
		},
	}}, grpc.MaxRecvMsgSize(16<<20))
	c := dial(t, address, appgrpc.Options{MaxBody: 8 << 20})
	d := &cloudevents.Delivery{Body: bytes.Repeat([]byte("x"), 10<<20)}
	for size, want := range map[int]string{7 << 20: "ack", 9 << 20: "retry (exhausted)"} {
		answer = make([]byte, size)
		if _, o := c.Binding(t.Context(), orders, d, time.Minute); short(o) != want {
			t.Errorf("answer of %d MiB: %s, want %s (%v)", size>>20, short(o), want, o.Err)
		}
	}
}
