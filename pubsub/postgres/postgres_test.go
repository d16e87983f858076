package postgres

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, value string
		ok          bool
	}{
		{"host", "h", true},
		{"tablePrefix", "bus_", true},
		{"tablePrefix", "Bus_", false},
		{"tablePrefix", "b; DROP TABLE x; --", false},
		{"tablePrefix", "1b", false},
		{"tablePrefix", strings.Repeat("x", 41), false},
		{"fetchSize", "0", false},
		{"fetchSize", "4097", false},
		{"pollInterval", "50ms", false},
		{"pollInterval", "61s", false},
		{"timeout", "10ms", false},
	}
	for _, r := range rows {
		items := []config.Item{{Name: "connectionString", Value: "postgres://u@h/d"}, {Name: r.name, Value: r.value}}
		if errs, _ := Component.Check(items).Split(false); (len(errs) == 0) != r.ok {
			t.Errorf("%s %s: %v", r.name, r.value, errs)
		}
	}
	if errs, _ := Component.Check(nil).Split(false); len(errs) == 0 {
		t.Error("no connection is needed")
	}
}

func TestOpenUnreachable(t *testing.T) {
	t.Parallel()
	env := component.Env{Name: "bus", AppID: "app", Logger: slog.New(slog.DiscardHandler)}
	_, err := Component.Open(t.Context(), env, []config.Item{{Name: "url", Value: "postgres://u:geheim@127.0.0.1:1/d"}})
	if err == nil || !fault.Retriable(err) || strings.Contains(err.Error(), "geheim") {
		t.Errorf("open: %v (%v)", err, fault.KindOf(err))
	}
}

// TestStatementsNameTheTables has a prefix reach every table, index and channel.
func TestStatementsNameTheTables(t *testing.T) {
	t.Parallel()
	q := newQueries("my_")
	all := strings.Join([]string{
		q.findQueue, q.makeQueue, q.publish, q.enroll, q.beat, q.dead, q.bury, q.giveBack, q.resign, q.alive, q.there, q.resync, q.retry,
		q.release, q.share, q.ack, q.sweep, q.unblock, q.notify, q.promote, q.claim, q.due, q.expired, q.expiredQueues, q.expiredOrphans,
		q.probe, q.channel,
	}, "\n")
	all += strings.Join(q.schema, "\n")
	for _, name := range []string{"{", "penstock", "%!"} {
		if strings.Contains(all, name) {
			t.Errorf("a statement has %q", name)
		}
	}
	for _, name := range []string{"my_pending", "my_messages", "my_queues", "my_processes", "my_ids", "'my_wake'"} {
		if !strings.Contains(all, name) {
			t.Errorf("no statement has %s", name)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"orders": true, "a b/ü*'": true, "": true, "a\x00b": false, "\xff": false, strings.Repeat("x", maxName+1): false,
	} {
		if err := usable(name); (err == nil) != ok || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	now := time.Now()
	got := columns([]item{
		{topic: "a", m: &pubsub.Message{}, now: now},
		{topic: "b", m: &pubsub.Message{Data: []byte("x"), Key: "k", DeliverAt: now.Add(time.Second), Expires: now}, metadata: encode(map[string]string{"m": "<"}), now: now},
	})
	want := rows{
		topics: []string{"a", "b"}, metadata: []string{"", `{"m":"\u003c"}`}, keys: [][]byte{nil, []byte("k")},
		bodies: [][]byte{{}, []byte("x")}, delays: []int64{0, 1_000_000}, lives: []int64{0, -1},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(rows{})); d != "" {
		t.Error(d)
	}
	if m := decode(&got.metadata[1]); m["m"] != "<" {
		t.Errorf("metadata %v", m)
	}
	if other := `[1]`; decode(&other) != nil || decode(nil) != nil {
		t.Error("metadata that is none")
	}
}

// holding is a member without a database, which holds messages of these keys,
// numbered from 1.
func holding(keys ...string) *member {
	d := &driver{opts: options{FetchSize: 8}, lastBeat: time.Now().Add(time.Hour), process: 7}
	m := newMember(d, pubsub.Subscription{Topic: "t", Group: "g"}, 3, 1, 7)
	claim(m, 1, keys...)
	return m
}

// claim does an exchange that finds messages.
func claim(m *member, first int64, keys ...string) work {
	w, _ := m.take()
	r := result{there: true}
	for i, key := range keys {
		r.claimed = append(r.claimed, &entry{Delivery: cloudevents.Delivery{Key: key, Attempt: 1}, id: first + int64(i), attempt: 1})
	}
	m.done(w, r)
	return w
}

func TestMemberKeepsTheOrderOfAKey(t *testing.T) {
	t.Parallel()
	m := holding("k", "k", "", "k")
	first, free := m.next(), m.next()
	if first.id != 1 || free.id != 3 || m.next() != nil {
		t.Fatalf("handed out %d and %d, want 1 and 3 and nothing else", first.id, free.id)
	}
	first.settle(cloudevents.Left("again"))
	again := m.next()
	if again == nil || again.id != 1 || again == first {
		t.Fatal("what was left does not come again, or as the delivery that is over")
	}
	first.settle(cloudevents.Acked()) // too late
	if m.next() != nil {
		t.Error("a delivery that is over let the next one go")
	}
	again.settle(cloudevents.Acked())
	if e := m.next(); e == nil || e.id != 2 {
		t.Fatal("the next of the key does not come")
	}
}

func TestMemberGivesAKeyBackWithItsRetry(t *testing.T) {
	t.Parallel()
	m := holding("k", "k", "k")
	m.arrived()
	looking, _ := m.take()
	m.next().settle(cloudevents.Retried(nil, time.Minute))
	late := &entry{Delivery: cloudevents.Delivery{Key: "k", Attempt: 1}, id: 4, attempt: 1}
	m.done(looking, result{there: true, claimed: []*entry{late}}) // the table does not know yet: it goes as well
	if m.next() != nil {
		t.Fatal("one that comes later is handed out first")
	}
	w, _ := m.take()
	if d := cmp.Diff([]int64{2, 3, 4}, ids(w.gives)); d != "" || len(w.retries) != 1 || time.Until(w.retries[0].due) > time.Minute {
		t.Errorf("retries %v, given back: %s", w.retries, d)
	}
}

func TestMemberLosesNothingWithAnExchange(t *testing.T) {
	t.Parallel()
	m := holding("", "", "")
	m.next().settle(cloudevents.Acked())
	m.next().settle(cloudevents.Retried(nil, time.Second))
	w, _ := m.take()
	m.putBack(w)
	m.next().settle(cloudevents.Acked())
	w, _ = m.take()
	if len(w.acks) != 2 || len(w.retries) != 1 || !w.resync || len(w.known) != 3 {
		t.Errorf("work %+v, want all outcomes, and a look at what we hold", w)
	}
	m.done(w, result{there: true})
	m.leave()
	if w, done := m.take(); !done {
		t.Errorf("not done: %+v", w)
	}
}

func TestMemberForgets(t *testing.T) {
	t.Parallel()
	m := holding("k", "k")
	e := m.next()
	m.forget(8)
	e.settle(cloudevents.Acked())
	if w, _ := m.take(); len(w.acks) != 0 || w.epoch != 8 || !w.claim {
		t.Errorf("work %+v, want a claim under the new name and nothing else", w)
	}
	if m.next() != nil {
		t.Error("what another process has is handed out")
	}
}

func TestMemberHandsOutNothingWhenItMayBeReplaced(t *testing.T) {
	t.Parallel()
	m := holding("k")
	m.d.lastBeat = time.Now().Add(-staleAfter)
	m.more = true
	if w, _ := m.take(); m.next() != nil || w.claim {
		t.Error("it goes on without a heartbeat")
	}
}

func TestMemberPausesWhenItHoldsMuch(t *testing.T) {
	t.Parallel()
	m := holding("k")
	m.ready[0].size, m.bytes = heldBytes, heldBytes
	m.more = true
	if w, _ := m.take(); w.claim {
		t.Error("it claims more though it has many bytes")
	}
	m.next()
	m.lanes["k"].wait = make([]*entry, m.low())
	w, _ := m.take()
	if d := cmp.Diff([][]byte{[]byte("k")}, w.full); d != "" || !w.claim {
		t.Errorf("claim %v, full keys: %s", w.claim, d)
	}
}

func TestSubscribeAfterClose(t *testing.T) {
	t.Parallel()
	d := &driver{closed: true}
	err := d.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, *cloudevents.Delivery) error { return nil })
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("subscribe: %v", err)
	}
	if err := d.Publish(t.Context(), "t", []pubsub.Message{{}}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("publish: %v", err)
	}
}
