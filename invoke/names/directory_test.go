package names_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// book is a resolver that knows what a test writes into it.
type book struct {
	mu        sync.Mutex
	addresses map[string][]string
	err       error
	hold      chan struct{} // an answer waits for it, unless nil

	asked  atomic.Int64
	closed atomic.Bool

	announced chan string // what was announced, and "back" when it was taken back
	refuse    atomic.Int64
}

func newBook() *book {
	return &book{addresses: map[string][]string{}, announced: make(chan string, 10)}
}

func (b *book) set(id string, addresses ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addresses[id] = addresses
}

func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *book) Resolve(ctx context.Context, app names.App) ([]string, error) {
	b.asked.Add(1)
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.addresses[app.ID]...), b.err
}

func (b *book) Announce(ctx context.Context, self names.Self) error {
	if b.refuse.Add(-1) >= 0 {
		return fault.New(fault.Unavailable, "refused")
	}
	b.announced <- fmt.Sprint(self.ID, self.InternalPort)
	<-ctx.Done()
	b.announced <- "back"
	return nil
}

func (b *book) Close(context.Context) error { b.closed.Store(true); return nil }

type noOptions struct{}

func instance(t testing.TB, d names.Driver) *component.Instance[names.Driver] {
	t.Helper()
	def := names.Define("book", component.About{}, func(context.Context, component.Env, noOptions) (names.Driver, error) { return d, nil })
	i := component.NewInstance[names.Driver](def, component.Env{Name: "book"}, nil, 0)
	if err := i.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return i
}

func directory(t testing.TB, d names.Driver) *names.Directory {
	t.Helper()
	dir := names.New(slog.New(slog.DiscardHandler))
	dir.Use(instance(t, d))
	t.Cleanup(func() { dir.Use(nil) })
	return dir
}

// call picks an instance and ends the call with err.
func call(t testing.TB, d *names.Directory, id string, err error) string {
	t.Helper()
	address, done, problem := d.Pick(t.Context(), names.App{ID: id})
	if problem != nil {
		t.Fatal(problem)
	}
	done(err)
	return address
}

func refused() error { return fault.New(fault.Unavailable, "dial: connection refused") }

func TestNobody(t *testing.T) {
	t.Parallel()
	_, _, err := names.New(slog.New(slog.DiscardHandler)).Pick(t.Context(), names.App{ID: "shop"})
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "no name resolution") {
		t.Errorf("without a resolver: %v", err)
	}
	_, _, err = directory(t, newBook()).Pick(t.Context(), names.App{ID: strings.Repeat("x", 10_000)})
	if fault.KindOf(err) != fault.NotFound || len(err.Error()) > 200 {
		t.Errorf("an id that nobody has: kind %v, %d bytes", fault.KindOf(err), len(err.Error()))
	}
}

func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("shop", "a:1")
		d := directory(t, b)
		for range 100 {
			if got := call(t, d, "shop", nil); got != "a:1" {
				t.Fatalf("picked %s", got)
			}
		}
		if n := b.asked.Load(); n != 1 {
			t.Errorf("asked %d times for 100 calls at once", n)
		}
		// An answer that is a little old is used while the next is on its way.
		b.set("shop", "b:1")
		pass(3 * time.Second)
		if got := call(t, d, "shop", nil); got != "a:1" {
			t.Errorf("3 s later: picked %s without waiting for it", got)
		}
		synctest.Wait()
		if got := call(t, d, "shop", nil); got != "b:1" {
			t.Errorf("after the new answer: picked %s", got)
		}
		// One that is very old is not.
		b.set("shop", "c:1")
		pass(time.Minute)
		if got := call(t, d, "shop", nil); got != "c:1" {
			t.Errorf("a minute later: picked %s", got)
		}
		if n := b.asked.Load(); n != 3 {
			t.Errorf("asked %d times, want 3", n)
		}
	})
}

func TestUnknownIDsDoNotHammer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		d := directory(t, b)
		for range 1000 {
			if _, _, err := d.Pick(t.Context(), names.App{ID: "ghost"}); fault.KindOf(err) != fault.NotFound {
				t.Fatalf("got %v", err)
			}
		}
		if n := b.asked.Load(); n != 1 {
			t.Errorf("asked %d times for one unknown id", n)
		}
		b.set("ghost", "a:1")
		pass(1100 * time.Millisecond)
		if got := call(t, d, "ghost", nil); got != "a:1" {
			t.Errorf("picked %s", got)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	b := newBook()
	d := directory(t, b)
	many := make([]string, 2*names.MaxInstances)
	for i := range many {
		many[i] = fmt.Sprint("h:", i)
	}
	b.set("many", many...)
	used := map[string]bool{}
	for range 20 * names.MaxInstances {
		used[call(t, d, "many", nil)] = true
	}
	if len(used) > names.MaxInstances || len(used) < names.MaxInstances/2 {
		t.Errorf("%d instances were used, the limit is %d", len(used), names.MaxInstances)
	}
	for i := range 3 * names.MaxApps {
		_, _, err := d.Pick(t.Context(), names.App{ID: fmt.Sprint("app", i)})
		if fault.KindOf(err) != fault.NotFound {
			t.Fatal(err)
		}
	}
	// The oldest made room, the newest are known.
	asked := b.asked.Load()
	call(t, d, "many", nil)
	if b.asked.Load() == asked {
		t.Error("an app that made room long ago was still known")
	}
}

func TestOneQuestionAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.hold = make(chan struct{})
		b.set("shop", "a:1")
		d := directory(t, b)
		var g sync.WaitGroup
		for range 50 {
			g.Go(func() { call(t, d, "shop", nil) })
		}
		impatient, cancel := context.WithCancel(t.Context())
		g.Go(func() {
			if _, _, err := d.Pick(impatient, names.App{ID: "shop"}); !errors.Is(err, context.Canceled) {
				t.Errorf("a caller that went away: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(b.hold)
		g.Wait()
		if n := b.asked.Load(); n != 1 {
			t.Errorf("asked %d times by 51 callers", n)
		}
	})
}

func TestResolverThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.fail(fault.New(fault.Unavailable, "ask server: refused"))
		d := directory(t, b)
		for range 100 {
			if _, _, err := d.Pick(t.Context(), names.App{ID: "shop"}); fault.KindOf(err) != fault.Unavailable {
				t.Fatalf("got %v", err)
			}
		}
		if n := b.asked.Load(); n != 1 {
			t.Errorf("asked %d times in no time", n)
		}
		b.fail(nil)
		b.set("shop", "a:1")
		pass(time.Second)
		call(t, d, "shop", nil)
		// What was known before stays.
		b.fail(fault.New(fault.Unavailable, "ask server: refused"))
		pass(time.Hour)
		for range 10 {
			if got := call(t, d, "shop", nil); got != "a:1" {
				t.Errorf("picked %s", got)
			}
		}
	})
}

// A resolver that answers nothing is waited for once, not for every call.
func TestResolverThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("shop", "a:1")
		d := directory(t, b)
		call(t, d, "shop", nil)
		b.hold = make(chan struct{})
		pass(time.Minute)
		start := time.Now()
		for range 20 {
			call(t, d, "shop", nil)
		}
		if waited := time.Since(start); waited > 6*time.Second {
			t.Errorf("20 calls waited %v", waited)
		}
	})
}

func TestLoadIsSpread(t *testing.T) {
	t.Parallel()
	b := newBook()
	b.set("shop", "a:1", "b:1", "c:1")
	d := directory(t, b)
	counts := map[string]int{}
	for range 3000 {
		counts[call(t, d, "shop", nil)]++
	}
	for a, n := range counts {
		if n < 700 {
			t.Errorf("%s got %d calls of 3000", a, n)
		}
	}
	// An instance that keeps its calls gets few more.
	held := map[string]int{}
	for range 300 {
		address, done, err := d.Pick(t.Context(), names.App{ID: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		if held[address]++; address != "a:1" {
			done(nil)
		}
	}
	if held["a:1"] > 60 {
		t.Errorf("a frozen instance got %d calls of 300", held["a:1"])
	}
}

func TestEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("shop", "a:1", "b:1", "c:1")
		d := directory(t, b)
		// b and c answer, a refuses; for a minute, a call each 10 ms.
		refusals := 0
		for range 6000 {
			address, done, err := d.Pick(t.Context(), names.App{ID: "shop"})
			switch {
			case err != nil:
				t.Fatal(err)
			case address == "a:1":
				refusals++
				done(refused())
			default:
				done(nil)
			}
			pass(10 * time.Millisecond)
		}
		// 250 ms, 500 ms ... 16 s, 30 s: eight or nine tries in a minute.
		if refusals < 7 || refusals > 10 {
			t.Errorf("an instance that is away was tried %d times in a minute", refusals)
		}
		// It comes back with the first probe that is answered.
		counts := map[string]int{}
		for range 6000 {
			counts[call(t, d, "shop", nil)]++
			pass(10 * time.Millisecond)
		}
		if counts["a:1"] < 500 {
			t.Errorf("an instance that is back got %d calls of 6000", counts["a:1"])
		}
	})
}

// Of an instance that is away one call at a time finds out whether it is back.
func TestOneProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("shop", "a:1", "b:1")
		d := directory(t, b)
		eject(t, d, "a:1")
		pass(300 * time.Millisecond)
		var probe func(error)
		probes := 0
		for range 100 {
			address, done, err := d.Pick(t.Context(), names.App{ID: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			if address == "a:1" {
				probes++
				probe = done
			}
		}
		if probes != 1 {
			t.Fatalf("%d probes of 100 calls", probes)
		}
		// One that tells nothing makes room for the next.
		probe(context.Canceled)
		if address, done, _ := d.Pick(t.Context(), names.App{ID: "shop"}); address != "a:1" {
			t.Errorf("after a probe that was cancelled: picked %s", address)
		} else {
			done(nil)
		}
	})
}

// eject makes calls until the one to address has failed.
func eject(t *testing.T, d *names.Directory, address string) {
	t.Helper()
	for range 1000 {
		got, done, err := d.Pick(t.Context(), names.App{ID: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		if got == address {
			done(refused())
			return
		}
		done(nil)
	}
	t.Fatalf("%s was never picked", address)
}

// Many calls that fail with one connection are one finding.
func TestCallsUnderWayCountOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("shop", "a:1", "b:1")
		d := directory(t, b)
		var under []func(error)
		for len(under) < 50 {
			address, done, err := d.Pick(t.Context(), names.App{ID: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			if address == "a:1" {
				under = append(under, done)
			}
		}
		for _, done := range under {
			done(refused())
		}
		pass(300 * time.Millisecond)
		if got := call(t, d, "shop", nil); got != "a:1" {
			t.Errorf("300 ms later: picked %s, want a probe", got)
		}
	})
}

func TestTheLastIsNeverEjected(t *testing.T) {
	t.Parallel()
	b := newBook()
	b.set("shop", "a:1")
	b.set("two", "a:1", "b:1")
	d := directory(t, b)
	for range 10 {
		call(t, d, "shop", refused())
	}
	for range 100 {
		call(t, d, "two", refused()) // fails the test when there is none
	}
}

func TestWhatSaysNothingOfTheInstance(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err   error
		times int
		away  bool
	}{
		"unavailable":   {refused(), 1, true},
		"cancelled":     {fmt.Errorf("call: %w", context.Canceled), 10, false},
		"two time-outs": {context.DeadlineExceeded, 2, false},
		"three":         {context.DeadlineExceeded, 3, true},
		"refused":       {fault.New(fault.Denied, "foreign identity"), 10, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBook()
			b.set("shop", "a:1", "b:1")
			d := directory(t, b)
			for n := 0; n < row.times; {
				address, done, err := d.Pick(t.Context(), names.App{ID: "shop"})
				if err != nil {
					t.Fatal(err)
				}
				if address == "a:1" {
					done(row.err)
					n++
				} else {
					done(nil)
				}
			}
			picked := 0
			for range 200 {
				if call(t, d, "shop", nil) == "a:1" {
					picked++
				}
			}
			if (picked == 0) != row.away {
				t.Errorf("%s: picked %d times of 200 afterwards", name, picked)
			}
		})
	}
}

// An instance that is away is a reason to ask again.
func TestDoubtAsksAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("shop", "a:1")
		d := directory(t, b)
		call(t, d, "shop", refused())
		b.set("shop", "b:1")
		pass(600 * time.Millisecond)
		call(t, d, "shop", refused())
		synctest.Wait()
		if got := call(t, d, "shop", nil); got != "b:1" {
			t.Errorf("picked %s", got)
		}
	})
}

func TestExchange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newBook(), newBook()
		first.set("shop", "a:1")
		second.set("shop", "b:1")
		first.hold = make(chan struct{})
		first.refuse.Store(2)
		d := directory(t, first)
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() {
			if err := d.Announce(ctx, names.Self{App: names.App{ID: "me"}, InternalPort: 7}); err != nil {
				t.Error(err)
			}
		})
		if got := <-first.announced; got != "me7" {
			t.Errorf("announced %s", got)
		}
		// A call that waits for the old resolver gets the answer of the new one.
		g.Go(func() {
			if got := call(t, d, "shop", nil); got != "b:1" {
				t.Errorf("picked %s", got)
			}
		})
		synctest.Wait()
		d.Use(instance(t, second))
		if got := <-first.announced + " " + <-second.announced; got != "back me7" {
			t.Errorf("exchange: %s", got)
		}
		cancel()
		if got := <-second.announced; got != "back" {
			t.Errorf("at the end: %s", got)
		}
		g.Wait()
	})
}

func TestPickDoesNotAllocate(t *testing.T) {
	b := newBook()
	b.set("shop", "a:1", "b:1", "c:1")
	d := directory(t, b)
	call(t, d, "shop", nil)
	ctx := t.Context()
	n := testing.AllocsPerRun(1000, func() {
		_, done, _ := d.Pick(ctx, names.App{ID: "shop"})
		done(nil)
	})
	if n >= 1 { // a refresh in the background allocates now and then
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 3, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := newBook()
			for i := range n {
				k.addresses["shop"] = append(k.addresses["shop"], fmt.Sprint("h:", i))
			}
			d := directory(b, k)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_, done, err := d.Pick(b.Context(), names.App{ID: "shop"})
					if err != nil {
						b.Error(err)
						return
					}
					done(nil)
				}
			})
		})
	}
}

// pass lets the time of a synctest bubble go on.
func pass(d time.Duration) { <-time.After(d) }
