//go:build services

package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/services"
)

const patience = 30 * time.Second

// reading subscribes until the test ends or stop is called.
func reading(t *testing.T, d *driver, topic string) (got chan *cloudevents.Delivery, stop func()) {
	t.Helper()
	got = make(chan *cloudevents.Delivery, 10_000)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := d.Prepare(ctx, pubsub.Subscription{Topic: topic, Group: "g"}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
			got <- x
			return nil
		})
		if err != nil && !d.isClosed() {
			t.Errorf("subscribe: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return got, stop
}

func next(t *testing.T, got <-chan *cloudevents.Delivery) *cloudevents.Delivery {
	t.Helper()
	select {
	case x := <-got:
		return x
	case <-time.After(patience):
		t.Fatal("nothing came")
		return nil
	}
}

func publish(t *testing.T, d *driver, topic string, ms ...pubsub.Message) {
	t.Helper()
	if err := d.Publish(t.Context(), topic, ms); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(last) {
			t.Fatal(what)
		}
	}
}

// count runs a query that returns a number.
func count(t *testing.T, d *driver, query string) (n int) {
	t.Helper()
	if err := d.db.Pool().QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNothingIsLeft checks that what is done leaves no row, for groups that acknowledge the
// same messages side by side too.
func TestNothingIsLeft(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	d := openAt(t, addr, "tablePrefix", prefix)
	defer closed(t, d)
	const n = 300
	groups := []string{"a", "b", "c"}
	for _, g := range groups {
		if err := d.Prepare(t.Context(), pubsub.Subscription{Topic: "t", Group: g}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		publish(t, d, "t", pubsub.Message{Data: []byte("x"), Key: []string{"", "k"}[i%2]})
	}
	var wg sync.WaitGroup
	for _, g := range groups {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		wg.Go(func() {
			left := n
			err := d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: g}, func(_ context.Context, x *cloudevents.Delivery) error {
				x.Settle(cloudevents.Acked())
				if left--; left == 0 {
					cancel()
				}
				return nil
			})
			if err != nil || left != 0 {
				t.Errorf("group %s: %v, %d are left", g, err, left)
			}
		})
	}
	wg.Wait()
	for _, table := range []string{"pending", "messages"} {
		eventually(t, table+" has rows that nobody needs", func() bool { return count(t, d, "SELECT count(*) FROM "+prefix+table) == 0 })
	}
}

// TestTakeOver has a process that dies with messages: another gets them within
// seconds, in order, and what the dead one still says counts for nothing.
func TestTakeOver(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	dead := openAt(t, addr, "tablePrefix", prefix)
	defer closed(t, dead)
	was, _ := reading(t, dead, "t")
	for i := range 5 {
		publish(t, dead, "t", pubsub.Message{Data: []byte(strconv.Itoa(i)), Key: "k"})
	}
	held := next(t, was)
	dead.stop() // neither beats nor gives back, as if it hung
	began := time.Now()
	live := openAt(t, addr, "tablePrefix", prefix)
	defer closed(t, live)
	got, _ := reading(t, live, "t")
	for i := range 5 {
		x := next(t, got)
		if string(x.Body) != strconv.Itoa(i) {
			t.Fatalf("received %s, want %d", x.Body, i)
		}
		if i == 0 {
			t.Logf("taken over after %s", time.Since(began))
			held.Settle(cloudevents.Acked()) // it is not its own any more
			eventually(t, "the outcome is not written", func() bool {
				dead.mu.Lock()
				defer dead.mu.Unlock()
				for m := range dead.members {
					m.mu.Lock()
					n := len(m.acks)
					m.mu.Unlock()
					if n > 0 {
						return false
					}
				}
				return true
			})
			if n := count(t, live, "SELECT count(*) FROM "+prefix+"pending"); n != 5 {
				t.Errorf("%d of 5 messages wait: a dead process acknowledged one", n)
			}
		}
		x.Settle(cloudevents.Acked())
	}
}

// TestTakenForDead has a process that was away for too long: it reads on under a
// new name.
func TestTakenForDead(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	d := openAt(t, addr, "tablePrefix", prefix)
	defer closed(t, d)
	got, _ := reading(t, d, "t")
	publish(t, d, "t", pubsub.Message{Data: []byte("1")})
	first := next(t, got)
	if _, err := d.db.Pool().Exec(t.Context(), "DELETE FROM "+prefix+"processes"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no new name", func() bool { return count(t, d, "SELECT count(*) FROM "+prefix+"processes") == 1 })
	first.Settle(cloudevents.Acked())
	if err := d.bury(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := next(t, got)
	if string(x.Body) != "1" {
		t.Errorf("received %s", x.Body)
	}
	x.Settle(cloudevents.Acked())
	publish(t, d, "t", pubsub.Message{Data: []byte("2")})
	next(t, got).Settle(cloudevents.Acked())
	eventually(t, "rows are left", func() bool { return count(t, d, "SELECT count(*) FROM "+prefix+"pending") == 0 })
}

// TestSharedKeys has several processes that read keys of which each is in use
// all the time: one at a time and in order, retries among them.
func TestSharedKeys(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	const keys, each, processes = 5, 120, 3
	var mu sync.Mutex
	want, under := map[string]int{}, map[string]bool{}
	done := make(chan struct{})
	left := keys * each
	take := func(_ context.Context, x *cloudevents.Delivery) error {
		mu.Lock()
		n, _ := strconv.Atoi(string(x.Body))
		if under[x.Key] || n != want[x.Key] {
			t.Errorf("key %s: received %d, want %d; another under way: %v", x.Key, n, want[x.Key], under[x.Key])
		}
		under[x.Key] = true
		mu.Unlock()
		go func() {
			mu.Lock()
			defer mu.Unlock()
			under[x.Key] = false
			if n%40 == 7 && x.Attempt == 1 {
				x.Settle(cloudevents.Retried(nil, time.Millisecond))
				return
			}
			want[x.Key]++
			if left--; left == 0 {
				close(done)
			}
			x.Settle(cloudevents.Acked())
		}()
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var publisher *driver
	for range processes {
		d := openAt(t, addr, "tablePrefix", prefix, "fetchSize", "16")
		publisher = d
		defer closed(t, d)
		s := pubsub.Subscription{Topic: "t", Group: "g"}
		if err := d.Prepare(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { _ = d.Subscribe(ctx, s, take) })
	}
	for i := range each {
		for k := range keys {
			publish(t, publisher, "t", pubsub.Message{Data: []byte(strconv.Itoa(i)), Key: fmt.Sprint("key ", k)})
		}
	}
	select {
	case <-done:
	case <-time.After(2 * patience):
		mu.Lock()
		t.Errorf("%d are left: %v", left, want)
		mu.Unlock()
	}
	cancel()
	wg.Wait()
}

// TestServerRestart stops the server while messages are held and settled.
func TestServerRestart(t *testing.T) {
	s := services.Start(t, "postgres")
	d := openAt(t, s.Addr)
	defer closed(t, d)
	got, _ := reading(t, d, "t")
	publish(t, d, "t", pubsub.Message{Data: []byte("1"), Key: "k"}, pubsub.Message{Data: []byte("2"), Key: "k"})
	first := next(t, got)
	if err := s.Stop(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(t.Context(), "t", []pubsub.Message{{}}); err == nil || !fault.Retriable(err.(*pubsub.BatchError).Errs[0]) {
		t.Errorf("publish without a server: %v", err)
	}
	first.Settle(cloudevents.Acked())
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		x := next(t, got)
		x.Settle(cloudevents.Acked())
		if string(x.Body) == "2" && x.Key == "k" {
			break
		}
	}
	eventually(t, "publish does not work again", func() bool { return d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("3")}}) == nil })
	for string(next(t, got).Body) != "3" {
		continue
	}
}

// TestRemovedFromTheDatabase takes away the group, and then all tables; both
// come back empty.
func TestRemovedFromTheDatabase(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	d := openAt(t, addr, "tablePrefix", prefix, "pollInterval", "100ms")
	defer closed(t, d)
	got, _ := reading(t, d, "t")
	publish(t, d, "t", pubsub.Message{Data: []byte("gone")})
	next(t, got)
	for _, text := range []string{
		"DELETE FROM {p}queues",
		"DROP TABLE {p}pending, {p}messages, {p}queues, {p}processes; DROP SEQUENCE {p}ids; DROP FUNCTION {p}gone",
	} {
		// Readers may have locked in another order: then the server refuses one of
		// the two.
		eventually(t, "it cannot be removed", func() bool {
			_, err := d.db.Pool().Exec(t.Context(), strings.ReplaceAll(text, "{p}", prefix))
			if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "40P01" {
				return false
			}
			if err != nil {
				t.Fatal(err)
			}
			return true
		})
		eventually(t, "the group does not come back", func() bool {
			var n int
			err := d.db.Pool().QueryRow(t.Context(), "SELECT count(*) FROM "+prefix+"queues").Scan(&n)
			return err == nil && n == 1
		})
		if n := count(t, d, "SELECT count(*) FROM "+prefix+"messages"); n != 0 {
			t.Errorf("%d messages of a group that is gone", n)
		}
		publish(t, d, "t", pubsub.Message{Data: []byte("x")})
		next(t, got).Settle(cloudevents.Acked())
	}
}

// TestExpiredWithoutAReader has the cleaner remove what nobody reads, also in
// front of others of its key.
func TestExpiredWithoutAReader(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	d := openAt(t, addr, "tablePrefix", prefix)
	defer closed(t, d)
	if err := d.Prepare(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	publish(t, d, "t", pubsub.Message{Expires: old, Key: "k"}, pubsub.Message{Data: []byte("good"), Key: "k"}, pubsub.Message{Expires: old})
	if _, err := d.db.Pool().Exec(t.Context(), "UPDATE "+prefix+"pending SET behind = true WHERE id IN (SELECT id FROM "+prefix+"messages WHERE expires IS NULL)"); err != nil {
		t.Fatal(err)
	}
	if err := d.cleanOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, m := count(t, d, "SELECT count(*) FROM "+prefix+"pending WHERE NOT behind"), count(t, d, "SELECT count(*) FROM "+prefix+"messages"); n != 1 || m != 1 {
		t.Errorf("%d rows wait, %d messages; want the good one", n, m)
	}
	got, _ := reading(t, d, "t")
	if x := next(t, got); string(x.Body) != "good" {
		t.Errorf("received %q", x.Body)
	}
}

// TestEveryWayToSendStatements is for those behind a pooler.
func TestEveryWayToSendStatements(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			d := openAt(t, addr, "tablePrefix", prefix, "queryExecMode", mode)
			defer closed(t, d)
			got, stop := reading(t, d, mode)
			defer stop()
			body := string([]byte{0, 0xff, '\'', '\\', '"'})
			publish(t, d, mode, pubsub.Message{Data: []byte(body), Key: body, Metadata: map[string]string{"a": "b"}}, pubsub.Message{Data: []byte("2"), Key: body})
			x := next(t, got)
			if string(x.Body) != body || x.Key != body || x.Metadata["a"] != "b" {
				t.Errorf("received %q of %q with %v", x.Body, x.Key, x.Metadata)
			}
			x.Settle(cloudevents.Retried(nil, time.Millisecond))
			x = next(t, got)
			if string(x.Body) != body || x.Attempt != 2 {
				t.Errorf("received %q, attempt %d", x.Body, x.Attempt)
			}
			x.Settle(cloudevents.Acked())
			next(t, got).Settle(cloudevents.Acked())
		})
	}
}
