package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/resilience"
)

// crowd is a target that watches who is in it.
type crowd struct {
	t    testing.TB
	work func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome

	mu    sync.Mutex
	in    map[string]int // by key
	now   int
	most  int
	order map[string][]string // served bodies by key, failed tries too
}

func newCrowd(t testing.TB, work func(context.Context, *cloudevents.Delivery) cloudevents.Outcome) *crowd {
	return &crowd{t: t, work: work, in: map[string]int{}, order: map[string][]string{}}
}

func (c *crowd) send(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.in[d.Key]++
	if d.Key != "" && c.in[d.Key] > 1 {
		c.t.Errorf("two deliveries of key %q under way", d.Key)
	}
	c.order[d.Key] = append(c.order[d.Key], string(d.Body))
	c.mu.Unlock()
	out := c.work(ctx, d)
	c.mu.Lock()
	c.now--
	c.in[d.Key]--
	c.mu.Unlock()
	return out
}

// served returns the tries of a key so far, and the most that were in at once.
func (c *crowd) served(key string) (bodies []string, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order[key]), c.most
}

// takes is work that takes d.
func takes(d time.Duration) func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
	return func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
		<-time.After(d)
		return ack
	}
}

func numbered(key string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s/%d", key, i))
	}
	return names
}

func TestLanesBoundAndOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), newCrowd(t, takes(time.Second))
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, Lanes: 3, Targets: to(c.send)})
		for i := range 5 {
			for _, k := range []string{"a", "b", "c", "d"} {
				b.put(fmt.Sprintf("%s/%d", k, i))
			}
		}
		pass(time.Minute)
		if c.most != 3 || b.settled() != 20 {
			t.Errorf("at most %d under way, %d settled", c.most, b.settled())
		}
		for _, k := range []string{"a", "b", "c", "d"} {
			if want := numbered(k, 5); !cmp.Equal(c.order[k], want) {
				t.Errorf("order of %s: %v", k, c.order[k])
			}
		}
	})
}

func TestOrderHoldsAcrossRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fails := 3
		b := newBook(t)
		c := newCrowd(t, func(_ context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			if string(d.Body) == "a/0" && fails > 0 {
				fails--
				return nope
			}
			return ack
		})
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, Lanes: 4, GiveBack: true, Targets: to(c.send)})
		b.put(numbered("a", 3)...)
		b.put(numbered("b", 3)...)
		synctest.Wait()
		if got, _ := c.served("b"); len(got) != 3 {
			t.Errorf("%v of the other key served while the first waits", got)
		}
		pass(time.Minute)
		want := []string{"a/0", "a/0", "a/0", "a/0", "a/1", "a/2"}
		if !cmp.Equal(c.order["a"], want) || b.settled() != 6 {
			t.Errorf("order %v, %d settled", c.order["a"], b.settled())
		}
	})
}

// TestMoreFailingKeysThanLanes shows that waiting holds no lane.
func TestMoreFailingKeysThanLanes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook(t)
		c := newCrowd(t, func(_ context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			if strings.HasPrefix(d.Key, "bad") {
				return nope
			}
			return ack
		})
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, Lanes: 2,
			Targets: []Target{{Name: "target", Send: c.send, Policy: resilience.Policy{Retry: everySecond(-1)}}},
		})
		for i := range 10 {
			b.put(fmt.Sprintf("bad%d/0", i))
		}
		b.put(numbered("good", 10)...)
		synctest.Wait()
		if got, _ := c.served("good"); !cmp.Equal(got, numbered("good", 10)) || b.settled() != 10 {
			t.Errorf("good ones served: %v, %d settled", got, b.settled())
		}
	})
}

// TestHangingKeyHoldsUpNoOther measures 64 lanes with and without a key that
// hangs, in fake time.
func TestHangingKeyHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	const keys, each = 64, 100
	measure := func(t *testing.T, hang bool) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			b := newBook(t)
			release := make(chan struct{})
			c := newCrowd(t, func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
				if hang && d.Key == "k0" {
					<-release
					return ack
				}
				return takes(time.Millisecond)(ctx, d)
			})
			mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, Lanes: 64, Targets: to(c.send)})
			start := time.Now()
			for i := range each {
				for k := range keys {
					b.put(fmt.Sprintf("k%d/%d", k, i))
				}
			}
			others := (keys - 1) * each
			for b.settled() < others {
				pass(time.Millisecond)
			}
			took = time.Since(start)
			close(release)
		})
		return took
	}
	free, hung := measure(t, false), measure(t, true)
	t.Logf("without a hanging key %s, with one %s", free, hung)
	if float64(free) < 0.9*float64(hung) {
		t.Errorf("the others fell to %.0f %% of their rate", 100*float64(free)/float64(hung))
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name  string
		count int
		bytes int64
		sizes []int
		in    int // how many get in before anything is settled
	}{
		{name: "by count", count: 3, bytes: 1 << 20, sizes: []int{1, 1, 1, 1, 1}, in: 3},
		{name: "by bytes", count: 100, bytes: 10, sizes: []int{4, 4, 4}, in: 2},
		{name: "exactly full", count: 100, bytes: 10, sizes: []int{5, 5, 1}, in: 2},
		{name: "one too large goes in alone", count: 100, bytes: 10, sizes: []int{50, 1}, in: 1},
		{name: "one too large waits to be alone", count: 100, bytes: 10, sizes: []int{1, 50, 1}, in: 1},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, release, emitted := newBook(t), make(chan struct{}), 0
				c := newCrowd(t, func(context.Context, *cloudevents.Delivery) cloudevents.Outcome { <-release; return ack })
				r := running(t, Options{})
				mustAdd(t, r, Route{
					Name: "r", Lanes: 100, Window: row.count, WindowBytes: row.bytes, Targets: to(c.send),
					Source: SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
						for i, n := range row.sizes {
							d := b.delivery(fmt.Sprintf("%d%s", i, strings.Repeat("x", n-1)))
							if err := emit(ctx, d); err != nil {
								return err
							}
							emitted++
						}
						<-ctx.Done()
						return nil
					}),
				})
				synctest.Wait()
				if s := r.Routes()[0]; emitted != row.in || s.Held != row.in || s.InFlight != row.in {
					t.Errorf("%d got in, want %d; status %+v", emitted, row.in, s)
				}
				close(release)
				synctest.Wait()
				if b.settled() != len(row.sizes) {
					t.Errorf("%d settled", b.settled())
				}
			})
		})
	}
}

func TestWindowWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(&Route{Window: 100, WindowBytes: 10})
		if err := w.enter(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		var order []string
		var mu sync.Mutex
		ask := func(ctx context.Context, name string, size int64) {
			err := w.enter(ctx, size)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				name += ": " + err.Error()
			}
			order = append(order, name)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go ask(ctx, "large", 9)
		synctest.Wait()
		go ask(t.Context(), "small", 2)
		synctest.Wait()
		w.leave(10)
		synctest.Wait()
		w.mu.Lock()
		if len(w.waiting) != 1 { // the large one went first
			t.Errorf("%d waiting", len(w.waiting))
		}
		w.mu.Unlock()
		go ask(ctx, "quitter", 9)
		synctest.Wait()
		go ask(t.Context(), "late", 1)
		synctest.Wait()
		cancel()
		synctest.Wait()
		w.leave(9)
		synctest.Wait()
		go ask(t.Context(), "never", 100)
		synctest.Wait()
		w.close()
		synctest.Wait()
		go ask(t.Context(), "closed", 1)
		synctest.Wait()
		want := []string{"large", "quitter: context canceled", "small", "late", "never: " + errStopped.Error(), "closed: " + errStopped.Error()}
		mu.Lock()
		defer mu.Unlock()
		// small and late are let in together; which of them runs first is open.
		if order[2] == "late" {
			order[2], order[3] = order[3], order[2]
		}
		if !cmp.Equal(order, want) {
			t.Error(cmp.Diff(want, order))
		}
		if n, bytes := w.use(); n != 2 || bytes != 3 {
			t.Errorf("%d and %d bytes in use", n, bytes)
		}
	})
}

func TestWindowQuitterMakesRoomForTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(&Route{Window: 100, WindowBytes: 10})
		if err := w.enter(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		large, small := make(chan error, 1), make(chan error, 1)
		go func() { large <- w.enter(ctx, 9) }()
		synctest.Wait()
		go func() { small <- w.enter(t.Context(), 5) }()
		synctest.Wait()
		cancel()
		if err := <-large; err != context.Canceled {
			t.Errorf("the quitter got %v", err)
		}
		synctest.Wait()
		select {
		case err := <-small:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the next one still waits")
			w.close()
		}
	})
}

func TestOrderingKeyOfTheRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), newCrowd(t, takes(time.Second))
		var decodes atomic.Int32
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, Lanes: 8, Targets: to(c.send),
			Decode: func(d *cloudevents.Delivery) error {
				decodes.Add(1)
				if string(d.Body) == "bad" {
					return errors.New("not an event")
				}
				d.Event = event(t, cloudevents.Attr{Name: "subject", Value: string(d.Body)})
				return nil
			},
			Key: func(d *cloudevents.Delivery) string { return d.Event.Subject()[:1] },
		})
		b.put("bad", "a1", "a2", "b1", "a3")
		pass(1500 * time.Millisecond)
		if _, most := c.served(""); most != 2 || b.settled() != 2 || decodes.Load() != 5 {
			t.Errorf("most %d, settled %d, decodes %d", most, b.settled(), decodes.Load())
		}
		pass(time.Minute)
		if !cmp.Equal(b.order[2:], []string{"a2", "a3"}) {
			t.Errorf("order %v", b.order)
		}
	})
}
