package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

func TestStuckKeyBeyondMemory(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	attach(t, d)
	const behind = 40 * laneLimit
	batch := make([]pubsub.Message, 0, behind)
	for i := range behind {
		batch = append(batch, text("stuck", strconv.Itoa(i)))
	}
	publish(t, d, batch...)
	w := watch(t, d)
	stuck := w.want(t, "0")
	const others = 500
	for i := range others {
		batch[i] = text("key "+strconv.Itoa(i%5), "free")
	}
	publish(t, d, batch[:others]...)
	for range others {
		w.want(t, "free").Settle(cloudevents.Acked())
	}
	q := d.group()
	q.mu.Lock()
	if q.held > laneLimit+others || len(q.lanes) > 1+5 || len(q.ready) > readyLow+scanRows {
		t.Errorf("in memory: %d held, %d lanes, %d ready", q.held, len(q.lanes), len(q.ready))
	}
	q.mu.Unlock()
	stuck.Settle(cloudevents.Acked())
	for i := 1; i < behind; i++ {
		w.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
	}
	until(t, "file is empty", func() bool { return number(t, d, "SELECT count(*) FROM pubsub_messages") == 0 })
}

func TestManyStuckKeysBeyondMemory(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	attach(t, d)
	const keys, each = 80, 250
	var batch []pubsub.Message
	for i := range keys * each {
		batch = append(batch, text(strconv.Itoa(i%keys), strconv.Itoa(i/keys)))
	}
	publish(t, d, batch...)
	w := watch(t, d)
	stuck := make([]*cloudevents.Delivery, keys)
	for i := range stuck {
		stuck[i] = w.want(t, "0")
	}
	for i := range 2000 {
		batch[i] = text("key "+strconv.Itoa(i%50), "free")
	}
	publish(t, d, batch[:2000]...)
	for range 2000 {
		w.want(t, "free").Settle(cloudevents.Acked())
	}
	q := d.group()
	q.mu.Lock()
	held := 0
	for _, l := range q.lanes {
		held += len(l.wait)
	}
	if q.held > heldLimit || q.held != held {
		t.Errorf("in memory: %d held, counted as %d", held, q.held)
	}
	q.mu.Unlock()
	for _, x := range stuck {
		x.Settle(cloudevents.Acked())
	}
	next := map[string]int{}
	for range keys * (each - 1) {
		x := w.next(t)
		if next[x.Key]++; string(x.Body) != strconv.Itoa(next[x.Key]) {
			t.Fatalf("key %s: received %s, want %d", x.Key, x.Body, next[x.Key])
		}
		x.Settle(cloudevents.Acked())
	}
	until(t, "file is empty", func() bool { return number(t, d, "SELECT count(*) FROM pubsub_messages") == 0 })
}

func TestLargeBodiesDoNotFillMemory(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	attach(t, d)
	body := make([]byte, 1<<20)
	const n = 24
	for range n {
		publish(t, d, pubsub.Message{Data: body}, pubsub.Message{Key: "k", Data: body})
	}
	w := &watcher{got: make(chan *cloudevents.Delivery), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		w.done <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
			w.got <- x
			return nil
		})
	}()
	for range 2 * n {
		x := w.next(t)
		q := d.group()
		q.mu.Lock()
		if q.bytes > readyBytes+scanBytes+2<<20 || q.heldFor > heldBytes {
			t.Errorf("in memory: %d bytes ready, %d held", q.bytes, q.heldFor)
		}
		q.mu.Unlock()
		x.Settle(cloudevents.Acked())
	}
	cancel()
	<-w.done
}

func TestManyDueAtOnce(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	attach(t, d)
	const n = 3 * dueRows
	batch := make([]pubsub.Message, n)
	due := time.Now().Add(20 * time.Millisecond)
	for i := range batch {
		batch[i] = pubsub.Message{Data: []byte(strconv.Itoa(i)), DeliverAt: due}
	}
	publish(t, d, batch...)
	w := watch(t, d) // it takes 64 and no more
	until(t, "some are due", func() bool { return len(w.got) == cap(w.got) })
	q := d.group()
	q.mu.Lock()
	if len(q.load) > 2*dueRows || len(q.ready) > 2*readyLow+scanRows {
		t.Errorf("in memory: %d to be read, %d ready", len(q.load), len(q.ready))
	}
	q.mu.Unlock()
	got := map[string]bool{}
	for range n {
		x := w.next(t)
		if got[string(x.Body)] {
			t.Errorf("%s came twice", x.Body)
		}
		got[string(x.Body)] = true
		x.Settle(cloudevents.Acked())
	}
	until(t, "file is empty", func() bool { return number(t, d, "SELECT count(*) FROM pubsub_messages") == 0 })
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	a := fresh(t, option("redeliverInterval", "6s"))
	b := openAt(t, a.b.db.Path())
	wa := watch(t, a)
	publish(t, a, text("k", "1"), text("k", "2"), text("x", "3"))
	one := wa.want(t, "1")
	three := wa.want(t, "3")
	until(t, "attempts are on disk", func() bool { return number(t, a, "SELECT sum(attempt) FROM pubsub_pending") == 2 })
	wb := watch(t, b)
	publish(t, b, text("other", "from b"))
	wa.want(t, "from b").Settle(cloudevents.Acked()) // seen by looking
	until(t, "it is gone", func() bool { return number(t, a, "SELECT count(*) FROM pubsub_pending") == 3 })
	select {
	case x := <-wb.got:
		t.Fatalf("b received %s from a group that a serves", x.Body)
	default:
	}
	// As if a had hung for longer than its lease, and b had taken the group.
	if err := b.b.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE pubsub_queues SET owner = ?, leased = ?", b.b.owner, time.Now().UnixMilli())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"1", "3"} {
		x := wb.want(t, body)
		if x.Attempt != 2 {
			t.Errorf("%s: attempt %d", body, x.Attempt)
		}
		if body == "1" {
			one.Settle(cloudevents.Retried(nil, time.Hour)) // a is no longer asked
		} else {
			three.Settle(cloudevents.Acked()) // but what it did is done
		}
		x.Settle(cloudevents.Acked())
	}
	wb.want(t, "2").Settle(cloudevents.Acked())
	until(t, "file is empty", func() bool { return number(t, b, "SELECT count(*) FROM pubsub_pending") == 0 })
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, a, text("k", "4"))
	wa.want(t, "4").Settle(cloudevents.Acked()) // a has it again
}

func TestBacklog(t *testing.T) {
	t.Parallel()
	d := fresh(t, option("maxBacklog", "3"))
	for i := range 5 {
		publish(t, d, text("", strconv.Itoa(i)))
	}
	w := watch(t, d)
	for i := 2; i < 5; i++ { // the oldest went, for there was no group
		w.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
	}
	until(t, "acknowledgements are counted", func() bool { return d.b.waitingIn(t) == 0 })
	w.stop()
	<-w.done
	publish(t, d, text("", "a"), text("", "b"), text("", "c"))
	err := d.Publish(t.Context(), "t", []pubsub.Message{text("", "d")})
	if fault.KindOf(err) != fault.Exhausted || !strings.Contains(err.Error(), `group "g" has 3 messages waiting`) {
		t.Errorf("full: %v", err)
	}
	err = d.Publish(t.Context(), "t", make([]pubsub.Message, 4))
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("batch over the bound: %v", err)
	}
	d.b.countMu.Lock()
	clear(d.b.waiting)
	d.b.countMu.Unlock()
	if err := d.b.count(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := d.b.waitingIn(t); n != 3 {
		t.Errorf("counted %d, want 3", n)
	}
}

func (b *broker) waitingIn(t *testing.T) (n int64) {
	t.Helper()
	b.countMu.Lock()
	defer b.countMu.Unlock()
	for _, w := range b.waiting {
		n += w
	}
	return n
}

func TestRetention(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	publish(t, d, text("", "1"), text("", "2"))
	clean := func(o options) {
		t.Helper()
		if err := d.b.cleanOnce(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	counts := func(messages, queues int64) {
		t.Helper()
		if m, q := number(t, d, "SELECT count(*) FROM pubsub_messages"), number(t, d, "SELECT count(*) FROM pubsub_queues"); m != messages || q != queues {
			t.Errorf("%d messages in %d queues, want %d in %d", m, q, messages, queues)
		}
	}
	clean(options{Retention: time.Hour})
	counts(2, 1)
	clean(options{Retention: -time.Second})
	counts(0, 0)
	attach(t, d)
	publish(t, d, text("", "kept"))
	clean(options{Retention: -time.Second})
	counts(1, 1)
	until(t, "lease is given up", func() bool {
		clean(options{GroupRetention: time.Nanosecond})
		return number(t, d, "SELECT count(*) FROM pubsub_queues") == 0
	})
	counts(0, 0)
	none := fresh(t, option("retention", "0"))
	publish(t, none, text("", "dropped"))
	if n := number(t, none, "SELECT count(*) FROM pubsub_messages"); n != 0 {
		t.Errorf("%d messages kept for nobody", n)
	}
}

func TestExpiredAreRemoved(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	for _, g := range []string{"g", "h"} {
		q, err := d.b.join(t.Context(), pubsub.Subscription{Topic: "t", Group: g})
		if err != nil {
			t.Fatal(err)
		}
		d.b.leave(q)
	}
	past := time.Now().Add(-time.Second)
	for range cleanRows/100 + 1 {
		batch := make([]pubsub.Message, 100)
		for i := range batch {
			batch[i] = pubsub.Message{Expires: past}
		}
		publish(t, d, batch...)
	}
	publish(t, d, pubsub.Message{Data: []byte("good"), Expires: time.Now().Add(time.Hour)})
	if err := d.b.cleanOnce(t.Context(), d.b.opts); err != nil {
		t.Fatal(err)
	}
	if m, p := number(t, d, "SELECT count(*) FROM pubsub_messages"), number(t, d, "SELECT count(*) FROM pubsub_pending"); m != 1 || p != 2 {
		t.Errorf("%d messages, %d pending", m, p)
	}
}

func TestFileShrinks(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	attach(t, d)
	size := func() int64 {
		if err := d.b.db.Write(t.Context(), func(*sql.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := d.b.db.Read().Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(d.b.db.Path())
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	body := make([]byte, 64<<10)
	var peak [2]int64
	for round := range peak {
		for range 8 {
			publish(t, d, pubsub.Message{Data: body}, pubsub.Message{Data: body}, pubsub.Message{Data: body}, pubsub.Message{Data: body},
				pubsub.Message{Data: body}, pubsub.Message{Data: body}, pubsub.Message{Data: body}, pubsub.Message{Data: body}, pubsub.Message{Data: body})
		}
		peak[round] = size()
		w := watch(t, d)
		for range 72 {
			w.next(t).Settle(cloudevents.Acked())
		}
		until(t, "file is empty", func() bool { return number(t, d, "SELECT count(*) FROM pubsub_messages") == 0 })
		w.stop()
		<-w.done
	}
	if peak[1] > peak[0]*11/10 {
		t.Errorf("space is not used again: %d, then %d bytes", peak[0], peak[1])
	}
	if err := d.b.cleanOnce(t.Context(), d.b.opts); err != nil {
		t.Fatal(err)
	}
	if now := size(); now > peak[0]/2 {
		t.Errorf("the file keeps %d of %d bytes with nothing in it", now, peak[0])
	}
}

func TestOutcomesWaitForTheDisk(t *testing.T) {
	t.Parallel()
	d := fresh(t, option("busyTimeout", "1ms"))
	w := watch(t, d)
	publish(t, d, text("a", "acked"), text("b", "retried"), text("a", "next"))
	acked, retried := w.want(t, "acked"), w.want(t, "retried")
	other, err := client.Open(t.Context(), component.Env{}, d.b.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	err = other.Write(t.Context(), func(*sql.Tx) error {
		if err := d.Publish(t.Context(), "t", []pubsub.Message{text("", "x")}); fault.KindOf(err) != fault.Unavailable {
			return fmt.Errorf("publish while locked: %w", err)
		}
		acked.Settle(cloudevents.Acked())
		retried.Settle(cloudevents.Retried(nil, time.Millisecond))
		w.want(t, "next").Settle(cloudevents.Acked())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	again := w.want(t, "retried")
	if again.Attempt != 2 {
		t.Errorf("attempt %d", again.Attempt)
	}
	again.Settle(cloudevents.Acked())
	until(t, "file is empty", func() bool { return number(t, d, "SELECT count(*) FROM pubsub_pending") == 0 })
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	w := watch(t, d)
	publish(t, d, text("", "before"))
	limit := func(pages int64) {
		t.Helper()
		if err := d.b.db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec("PRAGMA max_page_count = " + strconv.FormatInt(pages, 10))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	limit(number(t, d, "PRAGMA page_count") + 4)
	err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: make([]byte, 1<<20)}})
	if fault.KindOf(err) != fault.Exhausted || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("publish: %v (%s)", err, fault.KindOf(err))
	}
	w.want(t, "before").Settle(cloudevents.Acked())
	limit(1 << 30)
	publish(t, d, text("", "after"))
	w.want(t, "after").Settle(cloudevents.Acked())
}

func TestDamagedMessageIsSaid(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	attach(t, d)
	publish(t, d, text("", "x"))
	if err := d.b.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE pubsub_messages SET metadata = x'ff'")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w := watch(t, d)
	err := <-w.done
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), `read group "g" of topic "t": read message 1: decode metadata`) {
		t.Errorf("subscribe: %v", err)
	}
}
