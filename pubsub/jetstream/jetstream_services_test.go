//go:build services

package jetstream

import (
	"testing"
	"time"

	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestServiceConform(t *testing.T) {
	url := services.Need(t, "nats")
	prefix := ""
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		t.Helper()
		prefix = conform.Unique(t) + "."
		return conform.Apart(opened(t, url, "memoryStorage", "true"), prefix)
	}, conform.PubSubSetup{
		Unordered: true, Patience: 20 * time.Second, Largest: 1<<20 - 4096, // a server's max_payload counts the metadata
		Reopen: func(t *testing.T, _ pubsub.Driver) pubsub.Driver {
			t.Helper()
			return conform.Apart(opened(t, url, "memoryStorage", "true"), prefix)
		},
	})
}

func TestServiceWatermillSuite(t *testing.T) {
	conform.Watermill(t, fresh(services.Need(t, "nats")))
}
