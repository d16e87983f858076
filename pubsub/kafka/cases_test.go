package kafka

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// while is how long something is waited for that must come.
const while = 60 * time.Second

// cases are those that brokers decide, whichever they are.
func cases(t *testing.T, brokers string) {
	for name, run := range map[string]func(t *testing.T, brokers string){
		"members come and go":  comeAndGo("sticky"),
		"all stop for a while": comeAndGo("range"),
		"members of two kinds": comeAndGo("sticky", "roundrobin", "sticky"),
		"group deleted":        groupDeleted,
		"topic deleted":        topicDeleted,
		"session too short":    sessionTooShort,
		"consumerGroup":        consumerGroup,
		"not settled at close": notSettled,
		"prepared beside":      preparedBeside,
		"a partition moves":    moved,
		"done behind others":   doneBehind,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); run(t, brokers) })
	}
}

func TestCases(t *testing.T) { cases(t, fake(t)) }

// member is one subscription.
type member struct {
	got  chan *cloudevents.Delivery
	done chan error
	stop context.CancelFunc
}

func subscribe(t testing.TB, d pubsub.Driver, s pubsub.Subscription) *member {
	t.Helper()
	if s.Group == "" {
		s.Group = "app"
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &member{got: make(chan *cloudevents.Delivery), done: make(chan error, 1), stop: cancel}
	go func() {
		m.done <- d.Subscribe(ctx, s, func(ctx context.Context, d *cloudevents.Delivery) error {
			select {
			case m.got <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(cancel)
	return m
}

func (m *member) next(t testing.TB) *cloudevents.Delivery {
	t.Helper()
	select {
	case d := <-m.got:
		return d
	case err := <-m.done:
		t.Fatalf("subscribe returned %v", err)
	case <-time.After(while):
		t.Fatal("nothing comes")
	}
	return nil
}

func (m *member) want(t testing.TB, body string) *cloudevents.Delivery {
	t.Helper()
	d := m.next(t)
	if string(d.Body) != body {
		t.Fatalf("received %q, want %q", d.Body, body)
	}
	return d
}

// end ends the subscription and waits for that.
func (m *member) end(t testing.TB) {
	t.Helper()
	m.stop()
	if err := <-m.done; err != nil {
		t.Errorf("subscribe returned %v", err)
	}
}

func send(t testing.TB, d pubsub.Driver, topic string, ms ...pubsub.Message) {
	t.Helper()
	if err := d.Publish(t.Context(), topic, ms); err != nil {
		t.Fatal(err)
	}
}

func prepare(t testing.TB, d pubsub.Driver, topic string) {
	t.Helper()
	if err := d.(pubsub.Preparer).Prepare(t.Context(), pubsub.Subscription{Topic: topic, Group: "app"}); err != nil {
		t.Fatal(err)
	}
}

func text(s string) pubsub.Message { return pubsub.Message{Key: "k", Data: []byte(s)} }

// admin is a client that knows nothing of Penstock.
func admin(brokers string) *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(strings.Split(brokers, ",")...), Timeout: 20 * time.Second}
}

// book keeps what was published and what was delivered, by key.
type book struct {
	mu       sync.Mutex
	sent     map[string]int // how many
	seen     map[string]int
	count    int
	again    int
	disorder []string
}

func newBook() *book { return &book{sent: map[string]int{}, seen: map[string]int{}} }

// take notes a delivery.
func (b *book) take(d *cloudevents.Delivery) {
	key := d.Metadata["__key"]
	n, _ := strconv.Atoi(string(d.Body))
	b.mu.Lock()
	defer b.mu.Unlock()
	switch next := b.seen[key]; {
	case n < next:
		b.again++
	case n > next:
		b.disorder = append(b.disorder, fmt.Sprintf("%s: %d came when %d was next", key, n, next))
		b.seen[key] = n + 1
	default:
		b.seen[key]++
		b.count++
	}
}

// reader reads into the book as the Bus does: a subscription that ends with an
// error is made again.
type reader struct {
	d       pubsub.Driver
	stop    context.CancelFunc
	ended   chan struct{}
	settled sync.WaitGroup
	n       atomic.Int64
}

func (b *book) read(t testing.TB, d pubsub.Driver, topic string) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &reader{d: d, stop: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		for ctx.Err() == nil {
			err := d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "app"}, func(_ context.Context, x *cloudevents.Delivery) error {
				b.take(x)
				r.n.Add(1)
				r.settled.Add(1)
				time.AfterFunc(time.Millisecond, func() { // it takes the app a moment
					x.Settle(cloudevents.Acked())
					r.settled.Done()
				})
				return nil
			})
			if err != nil {
				t.Logf("subscribe: %v", err)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-r.ended })
	return r
}

func (r *reader) count() int64 { return r.n.Load() }

// leave stops a reader as a process does that is told to.
func (r *reader) leave(t testing.TB) {
	t.Helper()
	r.stop()
	<-r.ended
	r.settled.Wait()
	shut(t, r.d)
}

// write publishes events of some keys one after the other until ctx ends; each
// until it is confirmed.
func (b *book) write(t testing.TB, ctx context.Context, d pubsub.Driver, topic string) (done chan struct{}) {
	t.Helper()
	done = make(chan struct{})
	var keys sync.WaitGroup
	for k := range 8 {
		key := "key-" + strconv.Itoa(k)
		keys.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				for try := 0; ; try++ {
					err := d.Publish(t.Context(), topic, []pubsub.Message{{Key: key, Data: []byte(strconv.Itoa(n))}})
					if err == nil {
						break
					}
					if try == 100 || t.Context().Err() != nil {
						t.Errorf("publish: %v", err)
						return
					}
				}
				b.mu.Lock()
				b.sent[key] = n + 1
				b.mu.Unlock()
			}
		})
	}
	go func() { keys.Wait(); close(done) }()
	return done
}

// check waits until all that was sent was seen.
func (b *book) check(t testing.TB) {
	t.Helper()
	missing := func() (text []string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for key, n := range b.sent {
			if b.seen[key] != n {
				text = append(text, fmt.Sprintf("%s: %d of %d", key, b.seen[key], n))
			}
		}
		return text
	}
	if !eventually(func() bool { return missing() == nil }) {
		t.Errorf("lost: %q", missing())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.disorder != nil {
		t.Errorf("lost or out of order: %q", b.disorder[:min(len(b.disorder), 5)])
	}
	t.Logf("%d events, %d of them once more", b.count, b.again)
}

// eventually polls for a condition.
func eventually(ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(while); !ok(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !eventually(ok) {
		t.Fatalf("%s: not within %s", what, while)
	}
}

// comeAndGo has drivers of a group join and leave while events flow, which share
// out partitions in one way or, one after the other, in several: then they agree
// on one that all know.
func comeAndGo(ways ...string) func(t *testing.T, brokers string) {
	return func(t *testing.T, brokers string) {
		topic := conform.Unique(t)
		if err := create(t.Context(), brokers, topic, 4); err != nil {
			t.Fatal(err)
		}
		pub := opened(t, brokers, nil)
		defer shut(t, pub)
		driver := func(n int) pubsub.Driver {
			return opened(t, brokers, map[string]string{
				"consumerGroup": topic, "consumerGroupRebalanceStrategy": ways[n%len(ways)],
				"sessionTimeout": "30s", "rebalanceDrain": "8s", // a machine that is slow is no failure
			})
		}
		first := driver(0)
		prepare(t, first, topic)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		b := newBook()
		written := b.write(t, ctx, pub, topic)
		readers := []*reader{b.read(t, first, topic)}
		until(t, "the first member reads", func() bool { return readers[0].count() > 20 })
		for n := range 4 {
			r := b.read(t, driver(n+1), topic)
			readers = append(readers, r)
			until(t, "the new member reads", func() bool { return r.count() > 20 })
			readers[0].leave(t)
			readers = readers[1:]
			n := r.count()
			until(t, "the member that stays reads on", func() bool { return r.count() > n+50 })
		}
		stop()
		<-written
		b.check(t)
		readers[0].leave(t)
		if len(ways) == 1 && b.again > 0 {
			t.Errorf("%d events came once more though nothing failed", b.again)
		}
	}
}

// groupDeleted deletes a group, which brokers only do without members: one that
// is made again begins as one that is new.
func groupDeleted(t *testing.T, brokers string) {
	topic := conform.Unique(t)
	group := "app-" + topic
	remove := func() error {
		res, err := admin(brokers).DeleteGroups(t.Context(), &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
		if err != nil {
			return err
		}
		return res.Errors[group]
	}
	d := opened(t, brokers, map[string]string{"consumerGroup": group, "initialOffset": "oldest"})
	send(t, d, topic, text("1"))
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	m.want(t, "1").Settle(cloudevents.Acked())
	if err := remove(); err == nil {
		t.Error("a group with members can be deleted")
	}
	send(t, d, topic, text("2"))
	m.want(t, "2").Settle(cloudevents.Acked())
	m.end(t)
	shut(t, d)
	until(t, "delete the group", func() bool { return remove() == nil })

	newest := opened(t, brokers, map[string]string{"consumerGroup": group})
	defer shut(t, newest)
	prepare(t, newest, topic)
	send(t, newest, topic, text("3"))
	m = subscribe(t, newest, pubsub.Subscription{Topic: topic})
	m.want(t, "3").Settle(cloudevents.Acked())
	m.end(t)
}

// topicDeleted deletes a topic that is read: the one that is made anew under its
// name is read from its beginning.
func topicDeleted(t *testing.T, brokers string) {
	topic := conform.Unique(t)
	d := opened(t, brokers, nil)
	defer shut(t, d)
	reading := opened(t, brokers, nil)
	prepare(t, reading, topic)
	b := newBook()
	r := b.read(t, reading, topic)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	written := b.write(t, ctx, d, topic)
	until(t, "events flow", func() bool { return r.count() > 200 })
	stop()
	<-written
	b.check(t)
	if _, err := admin(brokers).DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}}); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	clear(b.sent)
	clear(b.seen)
	b.mu.Unlock()
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	written = b.write(t, ctx, d, topic)
	n := r.count()
	until(t, "events flow again", func() bool { return r.count() > n+200 })
	stop()
	<-written
	b.check(t)
	r.leave(t)
}

// sessionTooShort asks for less than the brokers allow: the member reads all the
// same.
func sessionTooShort(t *testing.T, brokers string) {
	topic := conform.Unique(t)
	d := opened(t, brokers, map[string]string{"sessionTimeout": "100ms"})
	defer shut(t, d)
	prepare(t, d, topic)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, text("1"))
	m.want(t, "1").Settle(cloudevents.Acked())
	m.end(t)
}

// consumerGroup stands for the app's own group, and before what follows it in
// the names of others; a group of another name is left alone.
func consumerGroup(t *testing.T, brokers string) {
	topic := conform.Unique(t)
	d := opened(t, brokers, map[string]string{"consumerGroup": topic})
	defer shut(t, d)
	for asked, group := range map[string]string{"app": topic, "app-orders": topic + "-orders", topic + "other": topic + "other"} {
		if err := d.(pubsub.Preparer).Prepare(t.Context(), pubsub.Subscription{Topic: topic, Group: asked}); err != nil {
			t.Fatal(err)
		}
		if at := committed(t, brokers, group, topic); at != 0 {
			t.Errorf("group %s asked for: group %s has the offset %d, want 0", asked, group, at)
		}
	}
}

// notSettled closes a driver with one event under way: it comes to the next one,
// and what was acknowledged before and behind it does not hold it back.
func notSettled(t *testing.T, brokers string) {
	topic := conform.Unique(t)
	d := opened(t, brokers, nil)
	prepare(t, d, topic)
	send(t, d, topic, text("1"), text("2"), pubsub.Message{Key: "k", Data: []byte("3")})
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	m.want(t, "1").Settle(cloudevents.Acked())
	m.want(t, "2")
	m.end(t)
	shut(t, d)
	d = opened(t, brokers, nil)
	defer shut(t, d)
	m = subscribe(t, d, pubsub.Subscription{Topic: topic})
	x := m.want(t, "2")
	if x.Attempt != 1 {
		t.Errorf("attempt %d, want 1", x.Attempt)
	}
	x.Settle(cloudevents.Acked())
	m.want(t, "3").Settle(cloudevents.Acked())
	m.end(t)
}

// committed is the offset of a group in partition 0.
func committed(t testing.TB, brokers, group, topic string) int64 {
	t.Helper()
	res, err := admin(brokers).OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
	if err != nil || res.Error != nil {
		t.Fatal(err, res)
	}
	return res.Topics[topic][0].CommittedOffset
}
