package cron

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
)

// note is the position that replicas share. Whoever is not its writer has lost
// the lease.
type note struct {
	mu     sync.Mutex
	text   string
	writer *turn
	down   bool // the store cannot be reached
}

type turn struct{ *note }

func (p *turn) Load(context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text, nil
}

func (p *turn) Save(_ context.Context, text string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.down:
		return fault.New(fault.Unavailable, "store is down")
	case p.writer != p:
		return fault.New(fault.Conflict, "lease is lost")
	}
	p.text = text
	return nil
}

// replica is a binding that takes turns.
func replica(t *testing.T, n *note, o options) (b *binding, begin func()) {
	t.Helper()
	env, p := environment(t), &turn{n}
	env.Position = p
	return mustOpen(t, env, o), func() { n.writer = p }
}

// TestTurns has two replicas that read one after the other, with a time between
// in which neither does.
func TestTurns(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, schedule, catchUp string
		want                    []string // slots, of both
	}{
		{"none", "*/10 * * * *", "none", []string{"00:10:00", "00:20:00", "00:40:00", "00:50:00", "01:10:00", "01:20:00"}},
		{"last", "*/10 * * * *", "last", []string{"00:10:00", "00:20:00", "00:30:00", "00:40:00", "00:50:00", "01:00:00", "01:10:00", "01:20:00"}},
		{"all", "*/5 * * * *", "all", []string{
			"00:05:00", "00:10:00", "00:15:00", "00:20:00", "00:25:00", "00:30:00", "00:35:00", "00:40:00", "00:45:00", "00:50:00",
			"00:55:00", "01:00:00", "01:05:00", "01:10:00", "01:15:00", "01:20:00",
		}},
		{"every", "@every 10m", "last", []string{"00:10:00", "00:20:00", "00:30:00", "00:40:00", "00:50:00", "01:00:00", "01:10:00", "01:20:00"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n, o := &note{}, defaults(row.schedule)
				o.CatchUp = row.catchUp
				one, oneBegins := replica(t, n, o)
				two, twoBegins := replica(t, n, o)
				r := &router{takes: time.Second}
				oneBegins()
				readFor(t, one, r, 20*time.Minute+time.Second/2) // ends with a tick under way, which is waited for
				<-time.After(13*time.Minute - time.Second)
				twoBegins()
				readFor(t, two, r, 20*time.Minute)
				<-time.After(10 * time.Minute)
				oneBegins()
				readFor(t, one, r, 20*time.Minute)
				closed(t, one)
				closed(t, two)
				r.wg.Wait()
				var slots []string
				for _, g := range r.seen {
					slots = append(slots, g.Slot)
				}
				if diff := cmp.Diff(row.want, slots); diff != "" {
					t.Fatalf("(-want +got)\n%s", diff)
				}
			})
		})
	}
}

// TestTurnsWithoutStore: no tick before the last one is written down, and none
// twice when it could not be.
func TestTurnsWithoutStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, o := &note{}, defaults("*/10 * * * *")
		o.CatchUp = "all"
		b, begin := replica(t, n, o)
		begin()
		r := &router{takes: time.Minute}
		go func() {
			<-time.After(10*time.Minute + time.Second)
			n.mu.Lock()
			defer n.mu.Unlock()
			n.down = true
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
		defer cancel()
		if err := b.Read(ctx, r.emit); fault.KindOf(err) != fault.Unavailable {
			t.Fatalf("Read ended with %v, though its position is not written", err)
		}
		r.want(t, got{"00:10:00", "00:10:00", 1})
		n.down = false
		readFor(t, b, r, 6*time.Minute)
		r.want(t, got{"00:10:00", "00:10:00", 1}, got{"00:25:02", "00:20:00", 1}, got{"00:30:00", "00:30:00", 1})
		n.writer = nil
		if err := b.Read(t.Context(), r.emit); fault.KindOf(err) != fault.Conflict {
			t.Fatalf("Read without the lease ended with %v", err)
		}
		closed(t, b)
		r.wg.Wait()
	})
}
