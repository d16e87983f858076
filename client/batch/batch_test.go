package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held is a Write that waits for a word before each batch.
type held struct {
	mu      sync.Mutex
	batches [][]int
	begun   chan struct{}
	pass    chan []error
}

func holding() *held { return &held{begun: make(chan struct{}, 64), pass: make(chan []error, 64)} }

func (h *held) write(ctx context.Context, items []int) []error {
	h.mu.Lock()
	h.batches = append(h.batches, slices.Clone(items))
	h.mu.Unlock()
	h.begun <- struct{}{}
	select {
	case errs := <-h.pass:
		return errs
	case <-ctx.Done():
		return All(len(items), ctx.Err())
	}
}

func TestOneGoesAtOnceAndTheRestTogether(t *testing.T) {
	t.Parallel()
	h := holding()
	w := NewWriter(t.Context(), Options[int]{Write: h.write, Most: 3})
	results := make(chan error, 8)
	add := func(n int) { w.Add(n, func(err error) { results <- err }) }
	add(0)
	<-h.begun
	for n := range 5 {
		add(n + 1)
	}
	wrong := errors.New("wrong")
	h.pass <- nil
	h.pass <- []error{nil, wrong, nil}
	h.pass <- nil
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(h.batches); got != "[[0] [1 2 3] [4 5]]" {
		t.Errorf("batches %s", got)
	}
	failed := 0
	for range 6 {
		if err := <-results; errors.Is(err, wrong) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if failed != 1 {
		t.Errorf("%d items failed, want the one that did", failed)
	}
}

func TestBytesBoundABatch(t *testing.T) {
	t.Parallel()
	h := holding()
	w := NewWriter(t.Context(), Options[int]{Write: h.write, Bytes: 10, Size: func(n int) int { return n }})
	w.Add(1, nil)
	<-h.begun
	for _, n := range []int{6, 4, 1, 50, 2} {
		w.Add(n, nil)
	}
	close(h.pass)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(h.batches); got != "[[1] [6 4] [1] [50] [2]]" {
		t.Errorf("batches %s", got)
	}
}

func TestCallerWhoLeavesIsNotWritten(t *testing.T) {
	t.Parallel()
	h := holding()
	w := NewWriter(t.Context(), Options[int]{Write: h.write})
	w.Add(0, nil)
	<-h.begun
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan []error, 1)
	go func() { done <- w.Do(ctx, 1, 2) }()
	for queued := 0; queued < 2; {
		w.mu.Lock()
		queued = len(w.queue)
		w.mu.Unlock()
	}
	cancel()
	if errs := <-done; len(errs) != 2 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("results %v", errs)
	}
	w.Add(3, nil)
	close(h.pass)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(h.batches); got != "[[0] [3]]" {
		t.Errorf("batches %s", got)
	}
}

func TestCloseCutsWhatHangs(t *testing.T) {
	t.Parallel()
	h := holding()
	w := NewWriter(t.Context(), Options[int]{Write: h.write})
	results := make(chan error, 2)
	w.Add(0, func(err error) { results <- err })
	<-h.begun
	w.Add(1, func(err error) { results <- err })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	for range 2 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("result %v", err)
		}
	}
	if len(h.batches) != 1 {
		t.Errorf("batches %v: the second was sent after the end", h.batches)
	}
	if errs := w.Do(t.Context(), 2); len(errs) != 1 || errs[0] == nil {
		t.Errorf("after close: %v", errs)
	}
}

// TestEveryItemOnce holds that whatever the sizes, everything is written once,
// in order, and each caller gets the result of its own items.
func TestEveryItemOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		calls := rapid.SliceOfN(rapid.IntRange(1, 7), 1, 40).Draw(rt, "calls")
		most := rapid.IntRange(1, 9).Draw(rt, "most")
		parallel := rapid.IntRange(1, 3).Draw(rt, "parallel")
		var mu sync.Mutex
		var written []int
		bad := errors.New("bad")
		w := NewWriter(t.Context(), Options[int]{Most: most, Parallel: parallel, Write: func(_ context.Context, items []int) []error {
			mu.Lock()
			defer mu.Unlock()
			written = append(written, items...)
			errs := make([]error, len(items))
			for i, n := range items {
				if n%5 == 0 {
					errs[i] = bad
				}
			}
			return errs
		}})
		var group sync.WaitGroup
		next := 0
		for _, n := range calls {
			items := make([]int, n)
			for i := range items {
				items[i] = next
				next++
			}
			group.Go(func() {
				errs := w.Do(t.Context(), items...)
				for i, item := range items {
					failed := errs != nil && errs[i] != nil
					if failed != (item%5 == 0) {
						rt.Errorf("item %d: results %v", item, errs)
					}
				}
			})
		}
		group.Wait()
		if err := w.Close(t.Context()); err != nil {
			rt.Fatal(err)
		}
		slices.Sort(written)
		for i, n := range written {
			if i != n {
				rt.Fatalf("written %v", written)
			}
		}
		if len(written) != next {
			rt.Fatalf("%d written, want %d", len(written), next)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	w := NewWriter(b.Context(), Options[int]{Write: func(context.Context, []int) []error { return nil }})
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Do(b.Context(), 1)
		}
	})
}

// A call that was left keeps its place for the late result; the next one does not
// get it.
func TestCallersGetTheirOwnResults(t *testing.T) {
	t.Parallel()
	w := NewWriter(t.Context(), Options[int]{Most: 3, Write: func(_ context.Context, items []int) []error {
		errs := make([]error, len(items))
		for i, n := range items {
			if n%2 == 1 {
				errs[i] = fmt.Errorf("%d", n)
			}
		}
		return errs
	}})
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			for i := range 200 {
				n := c*1000 + i
				ctx, cancel := context.WithCancel(t.Context())
				if i%5 == 0 {
					go cancel()
				}
				errs := w.Do(ctx, n)
				left := ctx.Err() != nil
				cancel()
				switch {
				case left && errs != nil && errors.Is(errs[0], context.Canceled): // it left
				case n%2 == 0 && errs != nil, n%2 == 1 && (errs == nil || errs[0].Error() != fmt.Sprint(n)):
					t.Errorf("%d: %v", n, errs)
				}
			}
		})
	}
	callers.Wait()
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
