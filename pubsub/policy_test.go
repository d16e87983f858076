package pubsub_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
)

// moody is a broker that answers each batch as the test says.
type moody struct {
	say     func(n int, bodies []string) error
	batches [][]string
	ids     map[string]bool
}

func (m *moody) Publish(_ context.Context, _ string, batch []pubsub.Message) error {
	var bodies []string
	for _, one := range batch {
		e, err := cloudevents.Scan(one.Data)
		if err != nil {
			return err
		}
		m.ids[e.ID()] = true
		bodies = append(bodies, string(e.Data()))
	}
	m.batches = append(m.batches, bodies)
	return m.say(len(m.batches), bodies)
}

func (m *moody) Subscribe(context.Context, pubsub.Subscription, cloudevents.EmitFunc) error {
	return nil
}

func (m *moody) Close(context.Context) error { return nil }

func openMoody(t *testing.T, say func(n int, bodies []string) error) (*moody, *pubsub.Bus) {
	t.Helper()
	m := &moody{say: say, ids: map[string]bool{}}
	def := pubsub.Define("moody", component.About{}, func(context.Context, component.Env, noOptions) (pubsub.Driver, error) { return m, nil })
	b, err := pubsub.New(def, component.Env{AppID: "shop", Name: "bus"}, config.Component{Name: "bus", Type: "pubsub.moody"})
	if err != nil {
		t.Fatal(err)
	}
	b.Instance().Run(t.Context())
	t.Cleanup(func() { b.Instance().Close(context.WithoutCancel(t.Context())) })
	b.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: time.Second, Limit: 3}})
	return m, b
}

func requests(bodies ...string) (out []pubsub.PublishRequest) {
	for _, b := range bodies {
		out = append(out, pubsub.PublishRequest{Topic: "t", Data: []byte(b)})
	}
	return out
}

// refuse fails the bodies that begin with a word for so many batches.
func refuse(failures map[string]error, batches int) func(int, []string) error {
	return func(n int, bodies []string) error {
		be, bad := &pubsub.BatchError{Errs: make([]error, len(bodies))}, false
		for i, body := range bodies {
			for word, err := range failures {
				if strings.HasPrefix(body, word) && n <= batches {
					be.Errs[i], bad = err, true
				}
			}
		}
		if !bad {
			return nil
		}
		return be
	}
}

func TestPolicyOfABulk(t *testing.T) {
	t.Parallel()
	full, wrong := fault.New(fault.Exhausted, "store message: full"), fault.New(fault.Invalid, "store message: too long")
	rows := []struct {
		name    string
		say     func(int, []string) error
		batches [][]string
		failed  []int
	}{
		{"all at once", func(int, []string) error { return nil }, [][]string{{"a", "b", "c"}}, nil},
		{"only what failed again", refuse(map[string]error{"a": full, "c": full}, 1), [][]string{{"a", "b", "c"}, {"a", "c"}}, nil},
		{"not what cannot succeed", refuse(map[string]error{"a": wrong, "b": full}, 1), [][]string{{"a", "b", "c"}, {"b"}}, []int{0}},
		{"nothing when nothing can", refuse(map[string]error{"a": wrong}, 9), [][]string{{"a", "b", "c"}}, []int{0}},
		{"until the retries are used up", refuse(map[string]error{"b": full}, 9), [][]string{{"a", "b", "c"}, {"b"}, {"b"}, {"b"}}, []int{1}},
		{"all of it when none of it is known to be there", func(n int, _ []string) error {
			if n == 1 {
				return fault.New(fault.Unavailable, "reset")
			}
			return nil
		}, [][]string{{"a", "b", "c"}, {"a", "b", "c"}}, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m, b := openMoody(t, row.say)
				start := time.Now()
				errs, err := b.BulkPublish(t.Context(), "t", requests("a", "b", "c"))
				if err != nil || len(errs) != 3 {
					t.Fatalf("%v, %v", errs, err)
				}
				var failed []int
				for i, err := range errs {
					if err != nil {
						failed = append(failed, i)
					}
				}
				if diff := cmp.Diff(row.failed, failed); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(row.batches, m.batches); diff != "" {
					t.Error(diff)
				}
				if len(m.ids) != 3 {
					t.Errorf("%d ids of 3 events", len(m.ids))
				}
				if took := time.Since(start); took != time.Duration(len(row.batches)-1)*time.Second {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

func TestPolicyOfAPublish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b := openMoody(t, func(n int, _ []string) error {
			if n < 3 {
				return fault.New(fault.Unavailable, "reset")
			}
			return nil
		})
		if err := b.Publish(t.Context(), &requests("a")[0]); err != nil || len(m.batches) != 3 || len(m.ids) != 1 {
			t.Errorf("%v after %d tries with %d ids", err, len(m.batches), len(m.ids))
		}
	})
}

func TestBreakerOfABulk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b := openMoody(t, func(int, []string) error { return fault.New(fault.Unavailable, "reset") })
		b.SetPolicy(&resilience.Policy{Breaker: resilience.NewBreaker(resilience.BreakerConfig{Trip: func(resilience.Counts) bool { return true }})})
		if errs, err := b.BulkPublish(t.Context(), "t", requests("a", "b")); err != nil || errs[0] == nil || errs[1] == nil {
			t.Errorf("%v, %v", errs, err)
		}
		if errs, err := b.BulkPublish(t.Context(), "t", requests("a", "b")); errs != nil || err == nil || len(m.batches) != 1 {
			t.Errorf("nothing may be tried: %v, %v, %d batches", errs, err, len(m.batches))
		}
	})
}

// TestAClosedBusIsNotTriedAgain is about a component that was replaced while a
// publish waited for its next try: it would wait for ever.
func TestAClosedBusIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for name, publish := range map[string]func(*pubsub.Bus, context.Context) error{
		"one": func(b *pubsub.Bus, ctx context.Context) error { return b.Publish(ctx, &requests("a")[0]) },
		"bulk": func(b *pubsub.Bus, ctx context.Context) error {
			errs, err := b.BulkPublish(ctx, "t", requests("a", "b"))
			if err != nil {
				return err
			}
			return errs[1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var tries atomic.Int32
				_, b := openMoody(t, func(int, []string) error { tries.Add(1); return fault.New(fault.Unavailable, "reset") })
				b.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: time.Second, Limit: -1}})
				time.AfterFunc(2500*time.Millisecond, func() { b.Instance().Close(context.WithoutCancel(t.Context())) })
				start := time.Now()
				err := publish(b, t.Context())
				if fault.KindOf(err) != fault.Unavailable || tries.Load() != 3 || time.Since(start) != 3*time.Second {
					t.Errorf("%v after %d tries and %s", err, tries.Load(), time.Since(start))
				}
			})
		})
	}
}

func TestPublishWithoutPolicyCostsNothingMore(t *testing.T) {
	s := &shelf{}
	b := open(t, s)
	r := &pubsub.PublishRequest{Topic: "t", Data: []byte("x"), TraceParent: fmt.Sprintf("00-%032d-%016d-01", 1, 1)}
	count := func() float64 {
		return testing.AllocsPerRun(200, func() {
			s.topics["t"] = s.topics["t"][:0]
			if err := b.Publish(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		})
	}
	bare := count()
	b.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Limit: 3}})
	under := count()
	b.SetPolicy(nil)
	if again := count(); again > bare || under > bare+3 {
		t.Errorf("%.0f allocations without a policy, %.0f with one, %.0f without one again", bare, under, again)
	}
	t.Logf("%.0f allocations without a policy, %.0f with one", bare, under)
}
