package peer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// appFunc is an app.
type appFunc func(ctx context.Context, r *message.Request) (*message.Response, error)

// Invoke implements invoke.App.
func (f appFunc) Invoke(ctx context.Context, r *message.Request) (*message.Response, error) {
	return f(ctx, r)
}

// way is how calls go: as messages of the protocol, or directly. Both promise the
// same.
type way string

const (
	messages way = "messages"
	direct   way = "direct"
)

func bothWays(t *testing.T, run func(*testing.T, way)) {
	t.Parallel()
	for _, w := range []way{messages, direct} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			run(t, w)
		})
	}
}

// prime is the path of the call that tells a client of the direct way; the app does
// not see it.
const prime = "prime"

// listen serves an app to other sidecars until the test ends.
func listen(t testing.TB, a invoke.App, maxBody int64) string {
	t.Helper()
	return messages.serve(t, peer.ServerOptions{App: a, MaxBody: maxBody, Drain: 10 * time.Second})
}

// listen is the same for calls that go this way, and none other.
func (w way) listen(t testing.TB, a invoke.App, maxBody int64) string {
	t.Helper()
	return w.serve(t, peer.ServerOptions{App: a, MaxBody: maxBody, Drain: 10 * time.Second})
}

func serve(t testing.TB, o peer.ServerOptions) string {
	t.Helper()
	return messages.serve(t, o)
}

func (w way) serve(t testing.TB, o peer.ServerOptions) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if w == direct && o.App != nil {
		o = withDirect(t, o)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s := peer.NewServer(o)
	go func() { ended <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// withDirect adds the direct way, and sees to it that calls go there.
func withDirect(t testing.TB, o peer.ServerOptions) peer.ServerOptions {
	var served atomic.Int64
	app := o.App
	o.App = appFunc(func(ctx context.Context, r *message.Request) (*message.Response, error) {
		if r.Path == prime {
			return text(200, ""), nil
		}
		return app.Invoke(ctx, r)
	})
	o.Direct = func(ctx context.Context, h http.Handler, l net.Listener) error {
		counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			h.ServeHTTP(w, r)
		})
		return apihttp.NewServer(counted, apihttp.ServerOptions{Context: peer.DirectContext, Drain: o.Drain}).Run(ctx, l)
	}
	t.Cleanup(func() {
		if served.Load() == 0 {
			t.Error("no call went the direct way")
		}
	})
	return o
}

// client makes a client that calls whoever is at an address this way.
func (w way) client(t testing.TB, at ...string) *peer.Client {
	t.Helper()
	c := client(t)
	w.prime(t, c, at...)
	return c
}

func (w way) prime(t testing.TB, c *peer.Client, at ...string) {
	t.Helper()
	for _, address := range at {
		if w != direct {
			continue
		}
		answer, err := c.Call(t.Context(), address, there, &message.Request{Verb: "GET", Path: prime, Header: http.Header{}})
		if err != nil {
			t.Fatal(err)
		}
		all(t, answer.Body)
	}
}

// there is the app that is called.
var there = names.App{ID: "there"}

func client(t testing.TB) *peer.Client {
	c := peer.NewClient(peer.ClientOptions{})
	t.Cleanup(c.Close)
	return c
}

func text(status int, body string) *message.Response {
	return &message.Response{Status: status, Header: http.Header{}, Trailer: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Length: int64(len(body))}
}

func all(t testing.TB, body io.ReadCloser) string {
	t.Helper()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read body: %v after %d bytes", err, len(data))
	}
	body.Close()
	return string(data)
}

func TestARequestArrivesAsItWasSent(t *testing.T) { bothWays(t, aRequestArrivesAsItWasSent) }

func aRequestArrivesAsItWasSent(t *testing.T, w way) {
	got := make(chan *message.Request, 1)
	bodies := make(chan string, 1)
	at := w.listen(t, appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		body, err := io.ReadAll(r.Body)
		got <- r
		bodies <- string(body)
		answer := text(207, "the answer")
		answer.Header = http.Header{"X-Reply": {"a", "b"}, "Content-Type": {"text/x"}, "Set-Cookie": {"c=1", "d=2"}}
		answer.Trailer = http.Header{"X-Sum": {"42"}}
		return answer, err
	}), 0)
	sent := &message.Request{
		Verb: "PATCH", Path: "a%2Fb/c%20d/", Query: "x=1&y=%20;&&z", Length: 8, Body: io.NopCloser(strings.NewReader("the body")),
		Header: http.Header{
			"X-One": {"1", "2"}, "Content-Type": {"text/y"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			"Tracestate": {"a=b"}, "Baggage": {"k=v"}, "Dapr-Caller-App-Id": {"here"},
		},
	}
	want := sent.Header.Clone()
	answer, err := w.client(t, at).Call(t.Context(), at, there, sent)
	if err != nil {
		t.Fatal(err)
	}
	body := all(t, answer.Body)
	r := <-got
	if r.Verb != "PATCH" || r.Path != "a%2Fb/c%20d/" || r.Query != sent.Query || r.Length != 8 || r.RPC || <-bodies != "the body" {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Error(diff)
	}
	if answer.Status != 207 || answer.RPC != nil || body != "the answer" || w == messages && answer.Length != 10 {
		t.Errorf("%+v %q", answer, body)
	}
	if diff := cmp.Diff(http.Header{"X-Reply": {"a", "b"}, "Content-Type": {"text/x"}, "Set-Cookie": {"c=1", "d=2"}}, answer.Header); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(http.Header{"X-Sum": {"42"}}, answer.Trailer); diff != "" {
		t.Error(diff)
	}
}

func TestBothBodiesStreamAtOnce(t *testing.T) { bothWays(t, bothBodiesStreamAtOnce) }

func bothBodiesStreamAtOnce(t *testing.T, w way) {
	at := w.listen(t, appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		answer := text(200, "")
		answer.Body, answer.Length = r.Body, -1 // every piece comes back before the next is sent
		return answer, nil
	}), 0)
	pr, pw := io.Pipe()
	answer, err := w.client(t, at).Call(t.Context(), at, there, &message.Request{Verb: "POST", Path: "echo", Header: http.Header{}, Body: pr, Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for i := range 100 {
		word := fmt.Sprintf("piece %d", i)
		if _, err := io.WriteString(pw, word); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(word))
		if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != word {
			t.Fatalf("%q, %v; want %q", got, err, word)
		}
	}
	pw.Close()
	if rest := all(t, answer.Body); rest != "" {
		t.Errorf("%q is left", rest)
	}
}

// pattern is a long body that can be checked without keeping it.
type pattern struct{ at, size int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-p.at))
	for i := range n {
		b[i] = byte((p.at + int64(i)) % 251)
	}
	p.at += int64(n)
	return n, nil
}

func TestABodyLargerThanAnyMessage(t *testing.T) { bothWays(t, aBodyLargerThanAnyMessage) }

func aBodyLargerThanAnyMessage(t *testing.T, w way) {
	const size = 24 << 20 // with messages of 1 MiB at most
	at := w.listen(t, appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		answer := text(200, "")
		answer.Body, answer.Length = r.Body, r.Length
		return answer, nil
	}), 1<<20)
	for _, length := range []int64{size, -1} {
		answer, err := w.client(t, at).Call(t.Context(), at, there, &message.Request{Verb: "POST", Path: "echo", Header: http.Header{}, Body: io.NopCloser(&pattern{size: size}), Length: length})
		if err != nil {
			t.Fatal(err)
		}
		want, n := &pattern{size: size}, int64(0)
		got, expected := make([]byte, 1<<16), make([]byte, 1<<16)
		for {
			m, err := io.ReadFull(answer.Body, got)
			n += int64(m)
			if k, _ := io.ReadFull(want, expected[:m]); k != m || string(got[:m]) != string(expected[:m]) {
				t.Fatalf("bytes before %d differ", n)
			}
			if err != nil {
				break
			}
		}
		answer.Body.Close()
		if n != size || answer.Length != length {
			t.Errorf("%d bytes came back, announced as %d", n, answer.Length)
		}
	}
}

func TestErrorsOfTheWayHaveTheirCodes(t *testing.T) { bothWays(t, errorsOfTheWayHaveTheirCodes) }

func errorsOfTheWayHaveTheirCodes(t *testing.T, w way) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	fails := func(err error) string {
		return w.listen(t, appFunc(func(context.Context, *message.Request) (*message.Response, error) { return nil, err }), 0)
	}
	rows := []struct {
		name, at string
		code     codes.Code
		kind     fault.Kind
	}{
		{"nobody listens", dead.Addr().String(), codes.Unavailable, fault.Unavailable},
		{"no app", listen(t, nil, 0), codes.Internal, fault.Internal},
		{"app not reached", fails(fault.New(fault.Unavailable, "no app")), codes.Internal, fault.Internal},
		{"denied", fails(fault.New(fault.Denied, "no")), codes.PermissionDenied, fault.Denied},
		{"invalid", fails(fault.New(fault.Invalid, "no")), codes.InvalidArgument, fault.Invalid},
		{"panic", w.listen(t, appFunc(func(context.Context, *message.Request) (*message.Response, error) { panic("bug") }), 0), codes.Internal, fault.Internal},
	}
	c := client(t)
	for i, row := range rows {
		if i > 1 {
			w.prime(t, c, row.at)
		}
		_, err := c.Call(t.Context(), row.at, there, &message.Request{Verb: "GET", Path: "x", Header: http.Header{}})
		var coded interface{ GRPCCode() uint32 }
		if !errors.As(err, &coded) || codes.Code(coded.GRPCCode()) != row.code || fault.KindOf(err) != row.kind {
			t.Errorf("%s: %v (%s)", row.name, err, fault.KindOf(err))
		}
	}
}

func TestTheEndOfACallerEndsTheCall(t *testing.T) { bothWays(t, theEndOfACallerEndsTheCall) }

func theEndOfACallerEndsTheCall(t *testing.T, w way) {
	ended := make(chan struct{})
	at := w.listen(t, appFunc(func(ctx context.Context, _ *message.Request) (*message.Response, error) {
		answer := text(200, "")
		pr, pw := io.Pipe()
		go func() {
			_, _ = io.WriteString(pw, "begin")
			<-ctx.Done()
			pw.CloseWithError(ctx.Err())
			close(ended)
		}()
		answer.Body, answer.Length = pr, -1
		return answer, nil
	}), 0)
	ctx, cancel := context.WithCancel(t.Context())
	answer, err := w.client(t, at).Call(ctx, at, there, &message.Request{Verb: "GET", Path: "x", Header: http.Header{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(answer.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(answer.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	answer.Body.Close()
	<-ended
}

func TestABodyThatBreaksIsNoWholeRequest(t *testing.T) { bothWays(t, aBodyThatBreaksIsNoWholeRequest) }

func aBodyThatBreaksIsNoWholeRequest(t *testing.T, w way) {
	broke, begun := make(chan error, 1), make(chan struct{})
	at := w.listen(t, appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		close(begun)
		_, err := io.ReadAll(r.Body)
		broke <- err
		return nil, err
	}), 0)
	pr, pw := io.Pipe()
	go func() {
		<-begun
		_, _ = io.WriteString(pw, "half")
		pw.CloseWithError(errBroken)
	}()
	_, err := w.client(t, at).Call(t.Context(), at, there, &message.Request{Verb: "POST", Path: "x", Header: http.Header{}, Body: pr, Length: -1})
	if !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
	if err := <-broke; err == nil {
		t.Error("the app read it to its end")
	}
}

var errBroken = errors.New("broken")

func TestAStatusOfGRPCArrivesWhole(t *testing.T) {
	t.Parallel()
	want := status.New(codes.NotFound, "no such order")
	at := listen(t, appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		answer := text(404, "")
		answer.RPC = want
		answer.Header, answer.Trailer = http.Header{"X-A": {"1"}, "X-Bin": {"\x00\xff"}}, http.Header{"X-T": {"2"}}
		if !r.RPC || r.Header.Get("X-Raw-Bin") != "\x01\xfe" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.TypeURL != "type.test/M" {
			t.Errorf("%+v", r)
		}
		return answer, nil
	}), 0)
	answer, err := client(t).Call(t.Context(), at, there, &message.Request{
		RPC: true, Path: "get", TypeURL: "type.test/M", Header: http.Header{"X-Raw-Bin": {"\x01\xfe"}}, Length: 1, Body: io.NopCloser(strings.NewReader("x")),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.RPC == nil || answer.RPC.Code() != codes.NotFound || answer.RPC.Message() != "no such order" || answer.Status != 404 ||
		answer.Trailer.Get("X-T") != "2" || answer.Header.Get("X-Bin") != "\x00\xff" || answer.Header.Get("X-A") != "1" {
		t.Errorf("%+v", answer)
	}
}
