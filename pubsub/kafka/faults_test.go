package kafka

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// TestTopicMissing has brokers that make no topics: whoever needs one is told
// what to do, and goes on when somebody did.
func TestTopicMissing(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	brokers, topic := addresses(c), conform.Unique(t)
	d := opened(t, brokers, nil)
	defer shut(t, d)
	told := func(what string, err error) {
		t.Helper()
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), topic) || !strings.Contains(err.Error(), "create it") {
			t.Errorf("%s a topic that is not there: %v", what, err)
		}
	}
	told("publish to", d.Publish(t.Context(), topic, []pubsub.Message{text("1")}))
	told("prepare", d.(pubsub.Preparer).Prepare(t.Context(), pubsub.Subscription{Topic: topic, Group: "app"}))
	told("subscribe to", d.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: "app"}, nil))

	if err := create(t.Context(), brokers, topic, 1); err != nil {
		t.Fatal(err)
	}
	prepare(t, d, topic)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, text("2"))
	m.want(t, "2").Settle(cloudevents.Acked())
	until(t, "commit", func() bool { return committed(t, brokers, "app", topic) == 1 })
	if err := c.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	told("go on reading", <-m.done)
}

// TestLeadersMove moves partitions and the group's coordinator between brokers
// while events flow.
func TestLeadersMove(t *testing.T) {
	t.Parallel()
	c := cluster(t, kfake.NumBrokers(3))
	brokers, topic := addresses(c), conform.Unique(t)
	pub := opened(t, brokers, nil)
	defer shut(t, pub)
	reading := opened(t, brokers, nil)
	prepare(t, reading, topic)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	b := newBook()
	written := b.write(t, ctx, pub, topic)
	r := b.read(t, reading, topic)
	for _, move := range []func(){c.ShufflePartitionLeaders, c.RehashCoordinators, c.ShufflePartitionLeaders, c.RehashCoordinators} {
		n := r.count()
		until(t, "events flow", func() bool { return r.count() > n+200 })
		move()
	}
	n := r.count()
	until(t, "events flow", func() bool { return r.count() > n+200 })
	stop()
	<-written
	b.check(t)
	r.leave(t)
}

// TestZombie has a member that the brokers have given up while it does not know:
// what it acknowledges is committed by nobody, and comes to the next one.
func TestZombie(t *testing.T) {
	t.Parallel()
	c := cluster(t, kfake.NumBrokers(1), kfake.DefaultNumPartitions(1))
	var mu sync.Mutex
	zombie, tried := "", 0
	c.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		beat := req.(*kmsg.HeartbeatRequest)
		if zombie == "" {
			zombie = beat.MemberID
		}
		return beat.ResponseKind(), nil, beat.MemberID == zombie // it hears that all is well
	})
	c.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if commit := req.(*kmsg.OffsetCommitRequest); commit.MemberID == zombie && commit.Generation >= 0 {
			tried++
		}
		return nil, nil, false
	})
	brokers, topic := addresses(c), conform.Unique(t)
	options := map[string]string{"sessionTimeout": "1s", "commitInterval": "50ms", "heartbeatInterval": "200ms"}
	first := opened(t, brokers, options)
	defer shut(t, first)
	prepare(t, first, topic)
	old := subscribe(t, first, pubsub.Subscription{Topic: topic})
	send(t, first, topic, text("1"), text("2"))
	held := old.want(t, "1")
	until(t, "a heartbeat", func() bool { mu.Lock(); defer mu.Unlock(); return zombie != "" })

	second := opened(t, brokers, options)
	defer shut(t, second)
	m := subscribe(t, second, pubsub.Subscription{Topic: topic})
	m.want(t, "1").Settle(cloudevents.Acked()) // the session of the first one is over
	m.want(t, "2").Settle(cloudevents.Acked())
	until(t, "commit", func() bool { return committed(t, brokers, "app", topic) == 2 })
	mu.Lock()
	before := tried
	mu.Unlock()
	held.Settle(cloudevents.Acked())
	until(t, "the zombie commits", func() bool { mu.Lock(); defer mu.Unlock(); return tried > before })
	if at := committed(t, brokers, "app", topic); at != 2 {
		t.Errorf("a member that was given up committed the offset %d", at)
	}
}

// TestContiguous acknowledges around a message that is under way: the offset
// stays before it.
func TestContiguous(t *testing.T) {
	t.Parallel()
	c := cluster(t, kfake.NumBrokers(1), kfake.DefaultNumPartitions(1))
	brokers, topic := addresses(c), conform.Unique(t)
	d := opened(t, brokers, map[string]string{"commitInterval": "10ms"})
	defer shut(t, d)
	prepare(t, d, topic)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	var all []*cloudevents.Delivery
	for _, key := range []string{"a", "b", "c", "d"} {
		send(t, d, topic, pubsub.Message{Key: key, Data: []byte(key)})
		all = append(all, m.want(t, key))
	}
	for _, step := range []struct {
		settle    []int
		committed int64
	}{{[]int{2, 0}, 1}, {[]int{3, 1}, 4}} {
		for _, i := range step.settle {
			all[i].Settle(cloudevents.Acked())
		}
		until(t, "commit", func() bool { return committed(t, brokers, "app", topic) >= step.committed })
		if at := committed(t, brokers, "app", topic); at != step.committed {
			t.Errorf("the offset is %d after %v was acknowledged, want %d", at, step.settle, step.committed)
		}
	}
	m.end(t)
}
