package app

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// served waits for a slot under a name and writes the name down when it has one.
func served(t *testing.T, s *slots, got *[]string, name string, wait func(context.Context) error) {
	go func() {
		if wait(t.Context()) == nil {
			*got = append(*got, name) // one at a time: there is one slot
			s.release()
		}
	}()
	synctest.Wait()
}

func TestTheOrderOfWaiting(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		held time.Duration
		want []string
	}{
		{"in turn for a short time", patience / 2, []string{"call 0", "event 0", "call 1", "event 1", "call 2", "event 2"}},
		{"then the newest call first", 2 * patience, []string{"call 2", "event 0", "call 1", "event 1", "call 0", "event 2"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSlots(1)
				if err := s.call(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.called = false
				var got []string
				for i := range 3 {
					served(t, s, &got, fmt.Sprint("event ", i), s.event)
					served(t, s, &got, fmt.Sprint("call ", i), s.call)
				}
				<-time.After(row.held)
				s.release()
				synctest.Wait()
				if !slices.Equal(got, row.want) {
					t.Errorf("served %v", got)
				}
			})
		})
	}
}

// TestTwiceTheCapacity holds that callers who wait for a second are answered at the
// rate that the app can do, however many there are.
func TestTwiceTheCapacity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const work, rate, seconds = 20 * time.Millisecond, 800, 5 // of 400 in a second
		s := newSlots(8)
		var mu sync.Mutex
		var wg sync.WaitGroup
		good := 0
		for range rate * seconds {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if s.call(ctx) != nil {
					return
				}
				defer s.release()
				<-time.After(work)
				if ctx.Err() == nil {
					mu.Lock()
					good++
					mu.Unlock()
				}
			})
			<-time.After(time.Second / rate)
		}
		wg.Wait()
		if good < 400*seconds*95/100 {
			t.Errorf("%d calls of %d were answered in time", good, 400*seconds)
		}
		if s.free != 8 || s.calls.Len() > 0 {
			t.Errorf("%d slots are free, %d wait", s.free, s.calls.Len())
		}
	})
}

// TestSlotsAreNotLost has callers give up at all moments.
func TestSlotsAreNotLost(t *testing.T) {
	t.Parallel()
	s := newSlots(3)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i*n)%50)*time.Microsecond)
				wait := s.call
				if n%2 == 0 {
					wait = s.event
				}
				if wait(ctx) == nil {
					<-time.After(10 * time.Microsecond)
					s.release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s.free != 3 || s.events.Len()+s.calls.Len() > 0 {
		t.Errorf("%d slots are free, %d events and %d calls wait", s.free, s.events.Len(), s.calls.Len())
	}
	if none := newSlots(0); none.event(t.Context()) != nil || none.call(t.Context()) != nil {
		t.Error("no bound is one")
	}
}
