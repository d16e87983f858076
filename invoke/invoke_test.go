package invoke_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/resilience"
)

// others are sidecars of other apps, and who finds them.
type others struct {
	call  func(n int, id, namespace string, r *message.Request) (*message.Response, error)
	n     int
	at    string
	ended []error
}

// Pick implements invoke.Finder.
func (o *others) Pick(_ context.Context, app names.App) (string, func(error), error) {
	if app.ID == "nobody" {
		return "", nil, fault.New(fault.NotFound, "no instance")
	}
	o.at = app.ID + "/" + app.Namespace
	return o.at, func(err error) { o.ended = append(o.ended, err) }, nil
}

// Call implements invoke.Peers.
func (o *others) Call(_ context.Context, _ string, app names.App, r *message.Request) (*message.Response, error) {
	o.n++
	return o.call(o.n, app.ID, app.Namespace, r)
}

type appFunc func(r *message.Request) (*message.Response, error)

// Invoke implements invoke.App.
func (f appFunc) Invoke(_ context.Context, r *message.Request) (*message.Response, error) {
	return f(r)
}

func answer(status int, body string) *message.Response {
	return &message.Response{Status: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Length: int64(len(body))}
}

func post(body string) *message.Request {
	return &message.Request{Verb: "POST", Path: "orders", Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Length: int64(len(body))}
}

func read(t *testing.T, body io.ReadCloser) string {
	t.Helper()
	data, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// coded is an error with a gRPC code.
type coded uint32

func (c coded) Error() string    { return "code" }
func (c coded) GRPCCode() uint32 { return uint32(c) }

func failed(code uint32) error { return fault.As(fault.FromGRPCCode(code), coded(code)) }

func TestTargets(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Dapr-Caller-App-Id") != "" {
			t.Error("who calls is told to the world")
		}
		_, _ = io.WriteString(w, "web "+r.RequestURI)
	}))
	t.Cleanup(web.Close)
	o := &others{call: func(_ int, id, namespace string, _ *message.Request) (*message.Response, error) {
		return answer(200, "peer "+id+" in "+namespace), nil
	}}
	v := invoke.New(invoke.Options{
		AppID: "me", Namespace: "home", Finder: o, Peers: o,
		App: appFunc(func(*message.Request) (*message.Response, error) { return answer(200, "app"), nil }),
	})
	t.Cleanup(v.Close)
	for target, want := range map[string]string{
		"me": "app", "me.home": "app", "me.other": "peer me in other", "you": "peer you in home", "you.other": "peer you in other",
		web.URL: "web /orders?a=b", web.URL + "/base/": "web /base/orders?a=b",
	} {
		r := post("")
		r.Query = "a=b"
		got, err := v.Do(t.Context(), target, r)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if body := read(t, got.Body); body != want {
			t.Errorf("%s: %q, want %q", target, body, want)
		}
	}
	for target, kind := range map[string]fault.Kind{
		"": fault.Invalid, "a.b.c": fault.Invalid, ".a": fault.Invalid, "a.": fault.Invalid, "a/b": fault.Invalid, "a b": fault.Invalid,
		"http://": fault.Invalid, "http://u:p@x": fault.Invalid, "http://x/?q": fault.Invalid, "http://x/#f": fault.Invalid, "nobody": fault.NotFound,
		"http://169.254.169.254": fault.Denied,
	} {
		if _, err := v.Do(t.Context(), target, post("")); fault.KindOf(err) != kind {
			t.Errorf("%q: %v (%s), want %s", target, err, fault.KindOf(err), kind)
		}
	}
}

func TestHeadersSayWhoCalls(t *testing.T) {
	t.Parallel()
	var got http.Header
	o := &others{call: func(_ int, _, _ string, r *message.Request) (*message.Response, error) {
		got = r.Header
		return answer(200, ""), nil
	}}
	v := invoke.New(invoke.Options{AppID: "me", Namespace: "home", Finder: o, Peers: o, Address: "fd00::1", Host: "machine"})
	t.Cleanup(v.Close)
	r := post("")
	r.Header = http.Header{
		"Dapr-Caller-App-Id": {"admin"}, "Dapr-Caller-Namespace": {"kube-system"}, "Dapr-Callee-App-Id": {"x"}, "X-Forwarded-For": {"10.0.0.1"},
		"X-Kept": {"1"},
	}
	a, err := v.Do(t.Context(), "you", r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	want := http.Header{
		"Dapr-Caller-App-Id": {"me"}, "Dapr-Caller-Namespace": {"home"}, "Dapr-Callee-App-Id": {"you"}, "X-Forwarded-For": {"10.0.0.1", "fd00::1"},
		"X-Forwarded-Host": {"machine"}, "X-Forwarded-Proto": {"http"}, "X-Kept": {"1"},
		"Forwarded": {`for="[fd00::1]";by="[fd00::1]";host=machine;proto=http`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(o.ended) != 1 || o.ended[0] != nil {
		t.Errorf("the finder heard %v", o.ended)
	}
}

func TestWithoutAPolicyOnlyTheWayIsTriedAgain(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name  string
		err   error // nil: a status of 500
		body  string
		calls int
		took  time.Duration
	}{
		{"not reached", failed(14), "x", 4, 3 * time.Second},
		{"not accepted", failed(16), "x", 4, 3 * time.Second},
		{"failed there", failed(13), "x", 1, 0},
		{"denied", failed(7), "x", 1, 0},
		{"an answer", nil, "x", 1, 0},
		{"a long body", failed(14), strings.Repeat("x", invoke.Replay+1), 1, 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := &others{call: func(n int, _, _ string, r *message.Request) (*message.Response, error) {
					if got := read(t, r.Body); got != row.body {
						t.Errorf("try %d sent %d bytes", n, len(got))
					}
					if row.err != nil {
						return nil, row.err
					}
					return answer(500, "no"), nil
				}}
				v := invoke.New(invoke.Options{AppID: "me", Finder: o, Peers: o})
				begin := time.Now()
				a, err := v.Do(t.Context(), "you", post(row.body))
				if (err == nil) != (row.err == nil) || err == nil && read(t, a.Body) != "no" {
					t.Errorf("%v", err)
				}
				if o.n != row.calls || time.Since(begin) != row.took {
					t.Errorf("%d calls in %s", o.n, time.Since(begin))
				}
			})
		})
	}
}

// policies are one for every target.
type policies struct{ p *resilience.Policy }

// Target implements invoke.Policies.
func (p policies) Target(string, string) *resilience.Policy { return p.p }

// BuiltIn implements invoke.Policies.
func (policies) BuiltIn() (time.Duration, int) { return time.Second, 3 }

func TestAPolicyJudgesAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		again := resilience.Retry{Constant: true, Initial: time.Second, Limit: 2}
		narrow := again
		narrow.Codes = &resilience.Codes{HTTP: []resilience.Range{{From: 500, To: 599}}}
		for _, row := range []struct {
			name   string
			retry  resilience.Retry
			status []int
			calls  int
			last   int
		}{
			{"until it works", again, []int{500, 404, 200}, 3, 200},
			{"used up: the last answer", again, []int{500, 503, 404, 200}, 3, 404},
			{"not a code to try again", narrow, []int{404, 200}, 1, 404},
			{"a code to try again", narrow, []int{500, 304}, 2, 304},
		} {
			o := &others{call: func(n int, _, _ string, r *message.Request) (*message.Response, error) {
				if got := read(t, r.Body); got != "body" {
					t.Errorf("%s: try %d sent %q", row.name, n, got)
				}
				return answer(row.status[n-1], "text"), nil
			}}
			v := invoke.New(invoke.Options{AppID: "me", Finder: o, Peers: o, Policies: policies{&resilience.Policy{Retry: row.retry}}})
			a, err := v.Do(t.Context(), "you", post("body"))
			if err != nil {
				t.Fatalf("%s: %v", row.name, err)
			}
			if a.Status != row.last || o.n != row.calls || read(t, a.Body) != "text" {
				t.Errorf("%s: %d after %d calls", row.name, a.Status, o.n)
			}
		}
	})
}

func TestABreakerOpensAndATimeIsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &others{call: func(int, string, string, *message.Request) (*message.Response, error) { return answer(404, ""), nil }}
		b := resilience.NewBreaker(resilience.BreakerConfig{Trip: func(n resilience.Counts) bool { return n.ConsecutiveFailures > 1 }})
		v := invoke.New(invoke.Options{AppID: "me", Finder: o, Peers: o, Policies: policies{&resilience.Policy{Breaker: b}}})
		for range 2 {
			if a, err := v.Do(t.Context(), "you", post("")); err != nil || a.Status != 404 {
				t.Fatal(a, err)
			}
		}
		if _, err := v.Do(t.Context(), "you", post("")); !errors.Is(err, resilience.ErrOpen) || o.n != 2 {
			t.Errorf("%v after %d calls", err, o.n)
		}
		v = invoke.New(invoke.Options{AppID: "me", App: endless{}, Policies: policies{&resilience.Policy{Timeout: time.Second}}})
		if _, err := v.Do(t.Context(), "me", post("")); fault.KindOf(err) != fault.Timeout {
			t.Errorf("%v", err)
		}
	})
}

// endless is an app that answers when its caller gives up.
type endless struct{}

// Invoke implements invoke.App.
func (endless) Invoke(ctx context.Context, _ *message.Request) (*message.Response, error) {
	<-ctx.Done()
	return nil, fault.Wrap(context.Cause(ctx), "call the app")
}

// spread finds the instances of one app in turn.
type spread struct {
	*others
	places []string
	picked int
}

// Pick implements invoke.Finder.
func (s *spread) Pick(context.Context, names.App) (string, func(error), error) {
	s.at = s.places[s.picked%len(s.places)]
	s.picked++
	return s.at, func(err error) { s.ended = append(s.ended, err) }, nil
}

// An instance that cannot be reached costs a call nothing when there is another
// one; without another one the policy decides.
func TestAnotherInstanceIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := message.Unsent(failed(14))
		var got []string
		o := &others{call: func(n int, _, _ string, r *message.Request) (*message.Response, error) {
			if n == 1 {
				return nil, errors.Join(away, r.Body.Close())
			}
			got = append(r.Header["X-Forwarded-Proto"], read(t, r.Body))
			return answer(200, "done"), nil
		}}
		s := &spread{others: o, places: []string{"a:1", "b:1"}}
		v := invoke.New(invoke.Options{AppID: "me", Finder: s, Peers: s})
		start := time.Now()
		a, err := v.Do(t.Context(), "you", post("once"))
		if err != nil || read(t, a.Body) != "done" || time.Since(start) > 0 {
			t.Errorf("answered %v, %v after %v", a, err, time.Since(start))
		}
		if diff := cmp.Diff([]string{"http", "once"}, got); diff != "" || o.n != 2 || len(o.ended) != 2 || o.ended[0] == nil || o.ended[1] != nil {
			t.Errorf("the other instance got %s; %d calls, ended %v", diff, o.n, o.ended)
		}
		o.n, o.call = 0, func(_ int, _, _ string, r *message.Request) (*message.Response, error) {
			return nil, errors.Join(away, r.Body.Close())
		}
		alone := &spread{others: o, places: []string{"a:1"}}
		v = invoke.New(invoke.Options{AppID: "me", Finder: alone, Peers: alone})
		start = time.Now()
		if _, err := v.Do(t.Context(), "you", post("")); !message.IsUnsent(err) || o.n != 4 || time.Since(start) != 3*time.Second {
			t.Errorf("one instance: %v after %d calls and %v, want 4 in 3 s", err, o.n, time.Since(start))
		}
	})
}
