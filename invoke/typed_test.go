package invoke_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/resilience"
)

// typedPeers are sidecars that take calls of the app's own services.
type typedPeers struct {
	others
	forward func(ctx context.Context, n int, c *proxy.Call) error
	tries   int
}

// Forward implements invoke.PeerForwarder.
func (p *typedPeers) Forward(ctx context.Context, _ string, _ names.App, c *proxy.Call) error {
	p.tries++
	return p.forward(ctx, p.tries, c)
}

// typedApp is the app that is served here.
type typedApp struct {
	appFunc
	forward func(c *proxy.Call) error
}

// Forward implements invoke.Forwarder.
func (a typedApp) Forward(_ context.Context, c *proxy.Call) error { return a.forward(c) }

func typedCall() *proxy.Call {
	return &proxy.Call{Method: "/a.B/C", Metadata: metadata.MD{"dapr-caller-app-id": {"a lie"}}}
}

// unsent is the error of a call to where nobody listens.
func unsent(t *testing.T) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err = typedCall().To(t.Context(), conn, nil); !message.IsUnsent(err) {
		t.Fatal(err)
	}
	return err
}

func TestATypedCallThatWasNotSentIsTriedAgain(t *testing.T) {
	t.Parallel()
	away := unsent(t)
	refused := status.Error(codes.Unavailable, "broke under way")
	for name, row := range map[string]struct {
		errs   []error // of each try; the last one stays
		tries  int
		code   codes.Code // of an answer
		blamed int
	}{
		"comes back":        {errs: []error{away, away, nil}, tries: 3, blamed: 2},
		"stays away":        {errs: []error{away}, tries: 4, blamed: 4},
		"broke under way":   {errs: []error{refused}, tries: 1, code: codes.Unavailable},
		"answered an error": {errs: []error{away, status.Error(codes.NotFound, "no such order")}, tries: 2, code: codes.NotFound, blamed: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &typedPeers{forward: func(_ context.Context, n int, c *proxy.Call) error {
				if diff := cmp.Diff(metadata.MD{"dapr-caller-app-id": {"me"}, "dapr-caller-namespace": {"ns"}, "dapr-callee-app-id": {"shop"}}, c.Metadata); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
				return row.errs[min(n, len(row.errs))-1]
			}}
			v := invoke.New(invoke.Options{AppID: "me", Namespace: "ns", Finder: p, Peers: p})
			defer v.Close()
			err := v.Forward(t.Context(), "shop.other", typedCall())
			blamed, told := 0, 0
			for _, err := range p.ended {
				switch {
				case errors.Is(err, context.Canceled): // the same instance was found once more, and not called
					continue
				case err != nil:
					blamed++
				}
				told++
			}
			last := row.errs[len(row.errs)-1]
			if p.tries != row.tries || p.at != "shop/other" || told != p.tries || blamed != row.blamed || (last == nil) != (err == nil) {
				t.Errorf("%s: %v after %d tries, %d told, %d blamed, at %s", name, err, p.tries, told, blamed, p.at)
			}
			if row.code != codes.OK && (!proxy.IsAnswer(err) || status.Code(err) != row.code) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// typedSpread finds the instances of one app in turn.
type typedSpread struct {
	typedPeers
	places []string
	asked  []string
}

// Pick implements invoke.Finder.
func (s *typedSpread) Pick(context.Context, names.App) (string, func(error), error) {
	at := s.places[0]
	s.places = append(s.places[1:], at)
	return at, func(err error) { s.ended = append(s.ended, err) }, nil
}

// Forward implements invoke.PeerForwarder.
func (s *typedSpread) Forward(ctx context.Context, at string, app names.App, c *proxy.Call) error {
	s.asked = append(s.asked, at)
	return s.typedPeers.Forward(ctx, at, app, c)
}

// An instance that cannot be reached costs a typed call nothing when there is
// another one, as it does any other call.
func TestATypedCallAsksAnotherInstanceAtOnce(t *testing.T) {
	t.Parallel()
	away := unsent(t)
	synctest.Test(t, func(t *testing.T) {
		s := &typedSpread{places: []string{"a:1", "b:1", "c:1"}}
		s.forward = func(_ context.Context, n int, _ *proxy.Call) error {
			if n < 3 {
				return away
			}
			return status.Error(codes.NotFound, "no such order")
		}
		b := resilience.NewBreaker(resilience.BreakerConfig{Trip: func(n resilience.Counts) bool { return n.TotalFailures > 1 }})
		v := invoke.New(invoke.Options{AppID: "me", Finder: s, Peers: s, Policies: typedPolicies{&resilience.Policy{Breaker: b}}})
		defer v.Close()
		start := time.Now()
		if err := v.Forward(t.Context(), "shop", typedCall()); status.Code(err) != codes.NotFound || time.Since(start) > 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if diff := cmp.Diff([]string{"a:1", "b:1", "c:1"}, s.asked); diff != "" || b.State() != "closed" {
			t.Errorf("breaker %s, asked %s", b.State(), diff)
		}
		if len(s.ended) != 3 || s.ended[0] == nil || s.ended[1] == nil || s.ended[2] != nil {
			t.Errorf("ended %v", s.ended)
		}
	})
}

func TestATypedCallOfTheOwnAppAndOfNobody(t *testing.T) {
	t.Parallel()
	own := 0
	p := &typedPeers{}
	v := invoke.New(invoke.Options{AppID: "me", Namespace: "ns", Finder: p, Peers: p, App: typedApp{forward: func(*proxy.Call) error { own++; return nil }}})
	defer v.Close()
	for _, target := range []string{"me", "me.ns"} {
		if err := v.Forward(t.Context(), target, typedCall()); err != nil {
			t.Error(err)
		}
	}
	if own != 2 || p.tries != 0 {
		t.Errorf("%d and %d calls", own, p.tries)
	}
	for target, kind := range map[string]fault.Kind{"nobody": fault.NotFound, "a/b": fault.Invalid, "": fault.Invalid} {
		if err := v.Forward(t.Context(), target, typedCall()); fault.KindOf(err) != kind || proxy.IsAnswer(err) {
			t.Errorf("%q: %v", target, err)
		}
	}
	v = invoke.New(invoke.Options{AppID: "me", Namespace: "ns"})
	defer v.Close()
	for target, kind := range map[string]fault.Kind{"me": fault.NotFound, "shop": fault.Unavailable} {
		if err := v.Forward(t.Context(), target, typedCall()); fault.KindOf(err) != kind {
			t.Errorf("%q: %v", target, err)
		}
	}
}

// typedPolicies are one policy for all.
type typedPolicies struct{ p *resilience.Policy }

// Target implements invoke.Policies.
func (p typedPolicies) Target(_, method string) *resilience.Policy {
	if method != "a.B/C" {
		return nil
	}
	return p.p
}

// BuiltIn implements invoke.Policies.
func (typedPolicies) BuiltIn() (time.Duration, int) { return 0, 0 }

func TestAPolicysTimeoutBoundsATypedCallUnlessItLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &typedPeers{forward: func(ctx context.Context, _ int, _ *proxy.Call) error {
			select {
			case <-ctx.Done():
				return status.FromContextError(ctx.Err()).Err()
			case <-time.After(time.Hour):
				return nil
			}
		}}
		v := invoke.New(invoke.Options{AppID: "me", Finder: p, Peers: p, Policies: typedPolicies{&resilience.Policy{Timeout: time.Second}}})
		defer v.Close()
		if err := v.Forward(t.Context(), "shop", typedCall()); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
		if len(p.ended) != 1 || fault.KindOf(p.ended[0]) != fault.Timeout {
			t.Errorf("told %v", p.ended)
		}
		c := typedCall()
		c.Lasting = true
		if err := v.Forward(t.Context(), "shop", c); err != nil {
			t.Error(err)
		}
	})
}

func TestABreakerCountsTheStatusOfATypedCall(t *testing.T) {
	t.Parallel()
	p := &typedPeers{forward: func(context.Context, int, *proxy.Call) error { return status.Error(codes.NotFound, "no such order") }}
	b := resilience.NewBreaker(resilience.BreakerConfig{Trip: func(n resilience.Counts) bool { return n.ConsecutiveFailures > 1 }})
	v := invoke.New(invoke.Options{AppID: "me", Finder: p, Peers: p, Policies: typedPolicies{&resilience.Policy{Breaker: b}}})
	defer v.Close()
	for range 2 {
		if err := v.Forward(t.Context(), "shop", typedCall()); status.Code(err) != codes.NotFound || !proxy.IsAnswer(err) {
			t.Error(err)
		}
	}
	if err := v.Forward(t.Context(), "shop", typedCall()); !errors.Is(err, resilience.ErrOpen) || p.tries != 2 {
		t.Errorf("%v after %d calls", err, p.tries)
	}
}

// The try that a breaker refuses tells what opened it.
func TestARefusedTryOfATypedCallTellsWhy(t *testing.T) {
	t.Parallel()
	away := unsent(t)
	p := &typedPeers{forward: func(context.Context, int, *proxy.Call) error { return away }}
	policy := &resilience.Policy{
		Retry:   resilience.Retry{Constant: true, Initial: time.Millisecond, Limit: 3},
		Breaker: resilience.NewBreaker(resilience.BreakerConfig{Trip: func(resilience.Counts) bool { return true }}),
	}
	v := invoke.New(invoke.Options{AppID: "me", Finder: p, Peers: p, Policies: typedPolicies{policy}})
	defer v.Close()
	if err := v.Forward(t.Context(), "shop", typedCall()); !message.IsUnsent(err) || p.tries != 1 {
		t.Errorf("%v after %d calls", err, p.tries)
	}
}
