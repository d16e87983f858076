package contract

import (
	"fmt"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The app lists the bindings it takes, unless a component says that it is an
// input.
func TestGRPCInputs(t *testing.T) {
	t.Parallel()
	resources := buses + crons("", "", "  - {name: direction, value: input}", "  - {name: direction, value: output}", "  - {name: route, value: /routed}")
	a := (&grpcApp{inputs: []string{"c0", "c3", "c4", "unknown"}}).serve(t)
	startGRPC(t, a, setup{resources: resources})
	for _, name := range []string{"c0", "c2", "c4"} {
		r := a.wait(t, "binding "+name, 2)[0].binding
		if len(r.GetMetadata()) == 0 {
			t.Errorf("%s: no metadata: %v", name, r)
		}
	}
	for _, name := range []string{"c1", "c3"} {
		if n := len(a.got("binding " + name)); n > 0 {
			t.Errorf("%s was called %d times", name, n)
		}
	}
	if n := len(a.got("ListInputBindings")); n != 1 {
		t.Errorf("asked %d times", n)
	}
	mute := (&grpcApp{}).serve(t)
	startGRPC(t, mute, setup{resources: resources})
	mute.wait(t, "binding c2", 2)
	if n := len(mute.got("binding c0")); n > 0 {
		t.Errorf("an app without ListInputBindings was called %d times", n)
	}
}

// What comes in reaches the app as it came, and what the app answers is carried
// out before the sender is answered.
func TestGRPCInputBinding(t *testing.T) {
	t.Parallel()
	sink := (&app{}).serve(t)
	a := &grpcApp{inputs: []string{"hook"}}
	a.binding = func(c grpcCall, n int) (*rtv1.BindingEventResponse, error) {
		body := string(c.binding.GetData())
		switch {
		case body == "again" && n == 1:
			return nil, status.Error(codes.Unavailable, "not now")
		case strings.HasPrefix(body, "nowhere"):
			return &rtv1.BindingEventResponse{To: []string{"nowhere"}, Data: []byte("x")}, nil
		case strings.HasPrefix(body, "parallel"):
			return &rtv1.BindingEventResponse{To: []string{"sink", "sink"}, Data: c.binding.GetData(), Concurrency: rtv1.BindingEventResponse_PARALLEL}, nil
		case strings.HasPrefix(body, "data"):
			return &rtv1.BindingEventResponse{Data: c.binding.GetData()}, nil
		case body == "again":
			return &rtv1.BindingEventResponse{}, nil
		}
		return &rtv1.BindingEventResponse{To: []string{"sink"}, Data: c.binding.GetData()}, nil
	}
	a.serve(t)
	hook := freePort(t)
	startGRPC(t, a, setup{resources: strings.NewReplacer("HOOK", fmt.Sprint(hook), "APP", fmt.Sprint(sink.port)).Replace(outputs)})
	post := func(body string) response {
		return send(t, request{url: fmt.Sprintf("http://127.0.0.1:%d/hook", hook), contentType: "application/x-own", body: body, header: map[string]string{"X-Tenant": "t1"}})
	}
	for i, want := range []int{5, 2} { // the app failed, so the sender keeps it
		if r := post("again"); r.status/100 != want {
			t.Fatalf("sender got %d %s, call %d", r.status, r.body, i)
		}
	}
	r := a.wait(t, "binding hook", 2)[1].binding
	if string(r.GetData()) != "again" || r.GetMetadata()["x-tenant"] != "t1" {
		t.Errorf("app got %v", r)
	}
	for _, row := range []struct {
		body   string
		status int
		times  int
	}{{"text", 2, 1}, {`{"n":1.0}`, 2, 1}, {"\xff\x00bytes", 2, 1}, {"parallel", 2, 2}, {"data alone", 2, 0}, {"nowhere", 5, 0}} {
		if r := post(row.body); r.status/100 != row.status {
			t.Errorf("%q: sender got %d %s", row.body, r.status, r.body)
		}
		n := 0
		for _, c := range sink.got("/sink") { // done before the answer
			if string(c.body) == row.body {
				n++
			}
		}
		if n != row.times {
			t.Errorf("%q reached %d outputs, want %d", row.body, n, row.times)
		}
	}
}

// The reply has data and metadata; the metadata is in the header as well.
func TestGRPCOutputBinding(t *testing.T) {
	t.Parallel()
	a := &app{reply: func(c call, _ int) answer {
		if strings.HasSuffix(c.path, "/fail") {
			return answer{status: 502}
		}
		return answer{status: 201, body: "\xff made", header: map[string][]string{"X-Reply": {"yes"}}}
	}}
	a.serve(t)
	_, client := startGRPC(t, nil, setup{resources: withOutputs(t, a)})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent, "x-secret", "no")
	var header metadata.MD
	r, err := client.InvokeBinding(ctx, &rtv1.InvokeBindingRequest{
		Name: "sink", Operation: "post", Data: []byte("\x00 as it is"), Metadata: map[string]string{"path": "/ok", "X-Mine": "m"},
	}, grpc.Header(&header))
	want{}.check(t, err)
	if string(r.GetData()) != "\xff made" || r.GetMetadata()["statusCode"] != "201" || r.GetMetadata()["X-Reply"] != "yes" {
		t.Errorf("reply %q %v", r.GetData(), r.GetMetadata())
	}
	if code, reply := header.Get("metadata.statusCode"), header.Get("metadata.X-Reply"); len(code) != 1 || code[0] != "201" || len(reply) != 1 || reply[0] != "yes" {
		t.Errorf("header %v", header)
	}
	c := a.wait(t, "/sink/ok", 1)[0]
	if string(c.body) != "\x00 as it is" || c.header.Get("X-Mine") != "m" || c.header.Get("X-Secret") != "" || !strings.HasPrefix(c.header.Get("traceparent"), parent[:35]) {
		t.Errorf("sent %q with %v", c.body, c.header)
	}
	for _, row := range []struct {
		name string
		in   *rtv1.InvokeBindingRequest
	}{
		{"unknown binding", &rtv1.InvokeBindingRequest{Name: "nope", Operation: "create"}},
		{"no name", &rtv1.InvokeBindingRequest{Operation: "create"}},
		{"unknown operation", &rtv1.InvokeBindingRequest{Name: "files", Operation: "paint"}},
		{"no operation", &rtv1.InvokeBindingRequest{Name: "files"}},
		{"component fails", &rtv1.InvokeBindingRequest{Name: "sink", Operation: "post", Metadata: map[string]string{"path": "/fail"}}},
		{"server is down", &rtv1.InvokeBindingRequest{Name: "unreachable", Operation: "get"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := client.InvokeBinding(t.Context(), row.in)
			want{code: codes.Internal, reason: "ERR_INVOKE_OUTPUT_BINDING"}.check(t, err)
		})
	}
}
