package kafka

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// pair is two members of a group that reads two partitions.
type pair struct {
	topic     string
	pub       pubsub.Driver
	a, b      *member
	sent      [2]int
	want, got map[string]int
}

// send publishes the next event of a partition.
func (p *pair) send(t *testing.T, partition int) (body string) {
	t.Helper()
	body = fmt.Sprintf("%d-%d", partition, p.sent[partition])
	p.sent[partition]++
	send(t, p.pub, p.topic, pubsub.Message{Key: body, Data: []byte(body), Metadata: map[string]string{"partitionNumber": strconv.Itoa(partition)}})
	return body
}

func (p *pair) ack(x *cloudevents.Delivery) {
	p.got[string(x.Body)]++
	x.Settle(cloudevents.Acked())
}

// halted publishes to both partitions until nothing comes of one, which is the
// one that moves; the second member gets nothing meanwhile.
func (p *pair) halted(t *testing.T) (partition int) {
	t.Helper()
	for end := time.Now().Add(while); time.Now().Before(end); {
		for i := range 2 {
			p.want[p.send(t, i)]++
		}
		came := [2]bool{}
		for came != [2]bool{true, true} {
			select {
			case x := <-p.a.got:
				came[x.Body[0]-'0'] = true
				p.ack(x)
			case x := <-p.b.got:
				t.Fatalf("the second member got %q while the first had an event of that partition under way", x.Body)
			case <-time.After(2 * time.Second):
				if came[0] {
					return 1
				}
				return 0
			}
		}
	}
	t.Fatal("no partition moves")
	return 0
}

// moved has a member that holds one event of each partition when another joins:
// what stays with it goes on meanwhile, and nothing comes to the other before it
// was finished here, or twice.
func moved(t *testing.T, brokers string) {
	p := &pair{topic: conform.Unique(t), want: map[string]int{}, got: map[string]int{}}
	if err := create(t.Context(), brokers, p.topic, 2); err != nil {
		t.Fatal(err)
	}
	options := map[string]string{"consumerGroup": p.topic}
	p.pub = opened(t, brokers, options)
	defer shut(t, p.pub)
	prepare(t, p.pub, p.topic)
	p.a = subscribe(t, p.pub, pubsub.Subscription{Topic: p.topic})
	held := [2]*cloudevents.Delivery{}
	for i := range held {
		held[i] = p.a.want(t, p.send(t, i))
	}
	second := opened(t, brokers, options)
	defer shut(t, second)
	p.b = subscribe(t, second, pubsub.Subscription{Topic: p.topic})
	moves := p.halted(t)
	held[moves].Settle(cloudevents.Acked())
	for len(p.got) < len(p.want) {
		select {
		case x := <-p.a.got:
			p.ack(x)
		case x := <-p.b.got:
			p.ack(x)
		case <-time.After(while):
			t.Fatalf("%d of %d came", len(p.got), len(p.want))
		}
	}
	p.b.want(t, p.send(t, moves)).Settle(cloudevents.Acked())
	if d := cmp.Diff(p.want, p.got); d != "" {
		t.Error(d)
	}
	held[1-moves].Settle(cloudevents.Acked())
	p.a.end(t)
	p.b.end(t)
}

// doneBehind closes a driver with events under way that others were done behind:
// those others do not come again, neither to the next driver nor to the one
// after it.
func doneBehind(t *testing.T, brokers string) {
	topic := conform.Unique(t)
	if err := create(t.Context(), brokers, topic, 1); err != nil {
		t.Fatal(err)
	}
	options := map[string]string{"consumerGroup": topic}
	d := opened(t, brokers, options)
	prepare(t, d, topic)
	const n = 60
	for i := range n {
		send(t, d, topic, pubsub.Message{Key: strconv.Itoa(i), Data: []byte(strconv.Itoa(i))})
	}
	done := func(i int) bool { return i > 0 && i%3 != 0 && i != n-1 }
	for round := range 2 {
		m := subscribe(t, d, pubsub.Subscription{Topic: topic})
		for i := range n {
			if round > 0 && done(i) {
				continue
			}
			if x := m.want(t, strconv.Itoa(i)); done(i) {
				x.Settle(cloudevents.Acked())
			} else {
				defer x.Settle(cloudevents.Left("too late")) // counts for nothing
			}
		}
		m.stop()
		shut(t, d)
		if err := <-m.done; err != nil {
			t.Errorf("subscribe returned %v", err)
		}
		d = opened(t, brokers, options)
	}
	defer shut(t, d)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	for i := range n {
		if !done(i) {
			m.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
		}
	}
	send(t, d, topic, text("new"))
	m.want(t, "new").Settle(cloudevents.Acked())
	m.end(t)
	if at := committed(t, brokers, topic, topic); at > n+1 {
		t.Errorf("the group is at offset %d of %d", at, n+1)
	}
}

// preparedBeside has a group begin on a topic while it reads another one: what is
// written from then on is for it, though this process ends before it has read any.
func preparedBeside(t *testing.T, brokers string) {
	group, first, second := conform.Unique(t), conform.Unique(t), conform.Unique(t)
	d := opened(t, brokers, nil)
	begin := func(topic string) {
		t.Helper()
		if err := d.(pubsub.Preparer).Prepare(t.Context(), pubsub.Subscription{Topic: topic, Group: group}); err != nil {
			t.Fatal(err)
		}
	}
	begin(first)
	send(t, d, first, text("1"))
	m := subscribe(t, d, pubsub.Subscription{Topic: first, Group: group})
	m.want(t, "1").Settle(cloudevents.Acked())
	begin(second)
	send(t, d, second, text("2"))
	m.end(t)
	shut(t, d)
	d = opened(t, brokers, nil)
	defer shut(t, d)
	m = subscribe(t, d, pubsub.Subscription{Topic: second, Group: group})
	m.want(t, "2").Settle(cloudevents.Acked())
	m.end(t)
}

// TestMemberOfAMissingTopic has a group of which a member asks for a topic that
// the brokers do not have: the others read on.
func TestMemberOfAMissingTopic(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "orders"), kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	d := opened(t, addresses(c), nil)
	defer shut(t, d)
	prepare(t, d, "orders")
	m := subscribe(t, d, pubsub.Subscription{Topic: "orders"})
	send(t, d, "orders", text("1"))
	m.want(t, "1").Settle(cloudevents.Acked())
	other, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: "app", Brokers: c.ListenAddrs(), Topics: []string{"missing"},
		GroupBalancers: []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	gen, err := other.Next(t.Context()) // it is a member now
	if err != nil {
		t.Fatal(err)
	}
	if n := len(gen.Assignments["missing"]); n != 0 {
		t.Fatalf("the other member reads %d partitions", n)
	}
	send(t, d, "orders", text("2"))
	m.want(t, "2").Settle(cloudevents.Acked())
	m.end(t)
}
