package deadletters_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/deadletters"
)

func TestRoomIsGoneWhenItIsFull(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*deadletters.Options){
		"letters": func(o *deadletters.Options) { o.MaxLetters = 2 },
		"bytes":   func(o *deadletters.Options) { o.MaxBytes = 300 },
	}
	for name, bound := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			k := keeper(t, &routes{}, func(o *deadletters.Options) {
				bound(o)
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			collect(t, k, letter(1), letter(2))
			gone, cancel := context.WithCancelCause(t.Context())
			cancel(errors.New("stopping"))
			for range 2 {
				if err := k.Room(gone); err == nil || err.Error() != "stopping" {
					t.Errorf("full: %v", err)
				}
			}
			if counts, full, err := k.Counts(); err != nil || !full || counts[0].Letters != 2 {
				t.Errorf("counts %v, full %v, %v", counts, full, err)
			}
			waits := make(chan error, 2)
			for range 2 {
				go func() { waits <- k.Room(t.Context()) }()
			}
			if n, _, err := k.Discard(t.Context(), &deadletters.Selection{Query: deadletters.Query{MinAttempts: 2}}); n != 1 || err != nil {
				t.Errorf("discard: %d, %v", n, err)
			}
			for range 2 {
				if err := <-waits; err != nil {
					t.Error(err)
				}
			}
			if text := log.String(); strings.Count(text, "are full") != 1 || strings.Count(text, "collected again") != 1 {
				t.Errorf("log:\n%s", text)
			}
		})
	}
}

// looks is a context that counts how often somebody waited for its end, and ends
// after too many.
type looks struct {
	context.Context
	end func()
	n   atomic.Int64
}

func (l *looks) Done() <-chan struct{} {
	if l.n.Add(1) == 100 {
		l.end()
	}
	return l.Context.Done()
}

// TestRoomSleepsWhileItIsFull has one letter go from a keeper that holds more
// than it should, so that it stays full.
func TestRoomSleepsWhileItIsFull(t *testing.T) {
	t.Parallel()
	k := keeper(t, &routes{}, func(o *deadletters.Options) { o.MaxLetters = 2 })
	collect(t, k, many(4)...)
	inner, end := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer end()
	ctx := &looks{Context: inner, end: end}
	waits := make(chan error)
	go func() { waits <- k.Room(ctx) }()
	if n, _, err := k.Discard(t.Context(), &deadletters.Selection{Query: deadletters.Query{MinAttempts: 4}}); n != 1 || err != nil {
		t.Errorf("discard: %d, %v", n, err)
	}
	if err := <-waits; err == nil {
		t.Error("there is room")
	}
	if n := ctx.n.Load(); n > 10 {
		t.Errorf("it looked %d times", n)
	}
}
