//go:build services

package snssqs

import (
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	for name, more := range map[string]map[string]string{"standard": nil, "fifo": {"fifo": "true"}} {
		t.Run(name, func(t *testing.T) {
			options := onServer(t, more)
			prefixes := map[pubsub.Driver]string{}
			open := func(t *testing.T, prefix string) pubsub.Driver {
				// A group has one queue for all topics.
				d := conform.ApartGroups(opened(t, options, nil), prefix)
				prefixes[d] = prefix
				return d
			}
			conform.PubSub(t, func(t *testing.T) pubsub.Driver { return open(t, conform.Unique(t)) }, setup(more != nil,
				func(t *testing.T, closed pubsub.Driver) pubsub.Driver { return open(t, prefixes[closed]) }))
		})
	}
}

func TestWatermillOnServer(t *testing.T) {
	conform.Watermill(t, func(t *testing.T) pubsub.Driver {
		fifo := strconv.FormatBool(strings.HasSuffix(t.Name(), "in_order"))
		return opened(t, onServer(t, map[string]string{"fifo": fifo}), nil)
	})
}

// onServer returns the options to use the server, with more of them. Moto is slow
// on a machine that does a lot: what is held must not come again for that.
func onServer(t *testing.T, more map[string]string) map[string]string {
	t.Helper()
	options := map[string]string{"endpoint": services.Need(t, "aws"), "region": "us-east-1", "accessKey": "key", "secretKey": "secret", "messageVisibilityTimeout": "20s"}
	maps.Copy(options, more)
	return options
}

func TestDeadLettersOnServer(t *testing.T) { deadLetters(t, onServer(t, nil)) }
