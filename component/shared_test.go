package component

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestShare(t *testing.T) {
	t.Parallel()
	var s Shared
	opened, closed := 0, 0
	open := func() (int, func() error, error) {
		opened++
		return opened, func() error { closed++; return errors.New("stuck") }, nil
	}
	a, releaseA, err := Share(&s, "k", open)
	if err != nil || a != 1 {
		t.Fatal(a, err)
	}
	b, releaseB, err := Share(&s, "k", open)
	if err != nil || b != 1 {
		t.Fatal(b, err)
	}
	if err := errors.Join(releaseA(), releaseA()); err != nil || closed != 0 {
		t.Fatal("closed while in use", err)
	}
	for range 2 {
		if err := releaseB(); err == nil || closed != 1 {
			t.Fatal(err, closed)
		}
	}
	if c, release, _ := Share(&s, "k", open); c != 2 || release() == nil {
		t.Error(c)
	}
	if len(s.items) != 0 {
		t.Error("items are left")
	}
}

func TestShareFails(t *testing.T) {
	t.Parallel()
	var s Shared
	_, _, err := Share(&s, "k", func() (int, func() error, error) { return 0, nil, errors.New("refused") })
	if err == nil {
		t.Fatal("no error")
	}
	func() {
		defer func() { _ = recover() }()
		_, _, _ = Share(&s, "p", func() (int, func() error, error) { panic("x") })
	}()
	if v, release, err := Share(&s, "k", func() (int, func() error, error) { return 7, nil, nil }); v != 7 || err != nil || release() != nil {
		t.Error(v, err)
	}
}

// TestShareWaitsForClosing holds that a key is not opened again before its old
// value is closed.
func TestShareWaitsForClosing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s Shared
		began := time.Now()
		_, release, _ := Share(&s, "k", func() (int, func() error, error) {
			return 1, func() error { <-time.After(time.Second); return nil }, nil
		})
		go func() { _ = release() }()
		synctest.Wait()
		v, again, err := Share(&s, "k", func() (int, func() error, error) { return 2, nil, nil })
		if v != 2 || err != nil || time.Since(began) != time.Second {
			t.Error(v, err, time.Since(began))
		}
		_ = again()
	})
}
