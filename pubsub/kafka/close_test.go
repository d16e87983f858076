package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/pubsub"
)

// TestAPublishEndsWithTheComponent publishes to topics that are not there yet while
// the component is closed: the look for a topic ends too, whatever the caller's
// context says.
func TestAPublishEndsWithTheComponent(t *testing.T) {
	t.Parallel()
	brokers := fake(t)
	for round := range 40 {
		d := opened(t, brokers, nil)
		var callers sync.WaitGroup
		for n := range 8 {
			callers.Go(func() { // how it ends does not matter
				_ = d.Publish(context.WithoutCancel(t.Context()), fmt.Sprintf("t-%d-%d", round, n), []pubsub.Message{{Data: []byte("x")}})
			})
		}
		<-time.After(rand.N(20 * time.Millisecond)) // any moment of the look for the topic
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { callers.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("a publish goes on after the component is closed")
		}
	}
}
