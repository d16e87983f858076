package dedupe

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func opened(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), component.Env{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func claim(t *testing.T, c router.Claims, key string, want router.ClaimState) {
	t.Helper()
	got, err := c.Claim(t.Context(), key)
	if err != nil || got != want {
		t.Errorf("claim %q: %v, %v; want %v", key, got, err, want)
	}
}

func confirm(t *testing.T, c router.Claims, key string) {
	t.Helper()
	if err := c.Confirm(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestClaimConfirmRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := opened(t, dir)
	a, b := s.Claims("a", time.Hour), s.Claims("b", time.Hour)
	claim(t, a, "1", router.Claimed)
	claim(t, a, "1", router.Held)
	claim(t, b, "1", router.Claimed) // each route has its own
	a.Release("1")
	claim(t, a, "1", router.Claimed)
	confirm(t, a, "1")
	claim(t, a, "1", router.Delivered)
	claim(t, b, "1", router.Held)
	closed(t, s)

	again := opened(t, dir)
	claim(t, again.Claims("a", time.Hour), "1", router.Delivered)
	claim(t, again.Claims("b", time.Hour), "1", router.Claimed) // it ended with the process
	closed(t, again)
}

func TestKeysAreForgotten(t *testing.T) {
	t.Parallel()
	s := opened(t, t.TempDir())
	defer closed(t, s)
	short, long := s.Claims("short", time.Millisecond), s.Claims("long", time.Hour)
	for i := range 5 {
		confirm(t, long, fmt.Sprint(i))
	}
	confirm(t, short, "1")
	for state := router.Delivered; state == router.Delivered; {
		var err error
		if state, err = short.Claim(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.clean(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if n := rows(t, s); n != 5 {
		t.Errorf("%d rows after the time of one is over, want 5", n)
	}
	if err := s.clean(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if n := rows(t, s); n > 2 {
		t.Errorf("%d rows, at most 2 are to be kept", n)
	}
}

func rows(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.db.Read().QueryRow("SELECT count(*) FROM dedupe_delivered").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func BenchmarkClaimAndConfirm(b *testing.B) {
	s, err := Open(context.Background(), component.Env{DataDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	c := s.Claims("route", time.Hour)
	b.SetParallelism(32)
	b.ReportAllocs()
	next := make(chan int, 1)
	next <- 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := <-next
			next <- n + 1
			key := fmt.Sprint(n)
			if state, err := c.Claim(b.Context(), key); err != nil || state != router.Claimed {
				b.Fatal(state, err)
			}
			if err := c.Confirm(b.Context(), key); err != nil {
				b.Fatal(err)
			}
		}
	})
}
