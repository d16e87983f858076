//go:build services

package kafka

import (
	"context"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestSuitesOnServer(t *testing.T) { // not parallel: the suites count goroutines
	suites(t, services.Need(t, "kafka"))
}

func TestCasesOnServer(t *testing.T) { cases(t, services.Need(t, "kafka")) }

// TestBrokerKilled kills one of three brokers while events flow, and starts it
// again: the one that coordinates the group, which leads a partition too.
func TestBrokerKilled(t *testing.T) {
	s := services.Start(t, "kafka")
	topic := conform.Unique(t)
	pub := opened(t, s.Addr, nil)
	defer shut(t, pub)
	reading := opened(t, s.Addr, nil)
	prepare(t, reading, topic)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	b := newBook()
	written := b.write(t, ctx, pub, topic)
	r := b.read(t, reading, topic)
	flows := func(when string) {
		n := r.count()
		until(t, "events flow "+when, func() bool { return r.count() > n+200 })
	}
	flows("at first")
	res, err := admin(s.Addr).FindCoordinator(t.Context(), &kafka.FindCoordinatorRequest{Key: "app"})
	if err != nil || res.Error != nil {
		t.Fatal(err, res)
	}
	node := s.Nodes[res.Coordinator.NodeID-1]
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	flows("without a broker")
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	flows("with all brokers")
	stop()
	<-written
	b.check(t)
	r.leave(t)
}
