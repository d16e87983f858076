//go:build services

package redis

import (
	"testing"
	"time"

	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformanceOnServer(t *testing.T) {
	addr := server(t)
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		return conform.Apart(openAt(t, addr), conform.Unique(t))
	}, conform.PubSubSetup{Unordered: true, ReturnAfter: 5 * time.Second})
}

func TestWatermillOnServer(t *testing.T) {
	addr := server(t)
	conform.Watermill(t, func(t *testing.T) pubsub.Driver { return openAt(t, addr) })
}

// server returns the address of the real server.
func server(t testing.TB) string {
	t.Helper()
	return services.Need(t, "redis")
}
