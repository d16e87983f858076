//go:build services

package mqtt

import (
	"syscall"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/services"
)

func TestServiceConform3(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, Component3, services.Need(t, "mqtt"))
}

func TestServiceConform5(t *testing.T) {
	suite(t, Component5, services.Need(t, "mqtt"))
}

func TestServiceWatermillSuite3(t *testing.T) {
	watermill(t, Component3, services.Need(t, "mqtt"))
}

func TestServiceWatermillSuite5(t *testing.T) {
	watermill(t, Component5, services.Need(t, "mqtt"))
}

func TestServiceFullWindow(t *testing.T) {
	for _, def := range components() {
		t.Run(def.Type, func(t *testing.T) { fullWindow(t, def, services.Need(t, "mqtt")) })
	}
}

// TestServiceRestart stops a server that keeps its sessions.
func TestServiceRestart(t *testing.T) {
	for _, def := range components() {
		t.Run(def.Type, func(t *testing.T) {
			s := services.Start(t, "mqtt")
			d := opened(t, def, s.Addr)
			t.Cleanup(func() { closed(t, d) })
			m := reading(t, d, pubsub.Subscription{Topic: "t"})
			greet(t, m, d, "t")
			publish(t, d, "t", "done", "held")
			done, held := m.want(t, "done"), m.want(t, "held")
			if err := s.Stop(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			<-m.lost
			done.Settle(cloudevents.Acked()) // while there is nobody to tell
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			publish(t, d, "t", "new")
			m.want(t, "new").Settle(cloudevents.Acked())
			held.Settle(cloudevents.Acked())
			m.none(t)
			m.stop()
			reading(t, d, pubsub.Subscription{Topic: "t"}).none(t)
		})
	}
}
