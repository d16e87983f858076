package snssqs

import (
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

// opened opens the component with options put over those of the fake.
func opened(t testing.TB, options map[string]string, more map[string]string) *driver {
	t.Helper()
	all := maps.Clone(options)
	maps.Copy(all, more)
	var items []config.Item
	for _, name := range slices.Sorted(maps.Keys(all)) {
		items = append(items, config.Item{Name: name, Value: all[name]})
	}
	d, err := Component.Open(t.Context(), component.Env{AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}, items)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*driver)
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	for name, more := range map[string]map[string]string{"standard": nil, "fifo": {"fifo": "true"}} {
		t.Run(name, func(t *testing.T) {
			// The suite counts goroutines: servers run before a case begins.
			fresh := make(chan *awsfake.Server, 60)
			for range cap(fresh) {
				fresh <- awsfake.Start(t)
			}
			servers := map[pubsub.Driver]*awsfake.Server{}
			open := func(t *testing.T, s *awsfake.Server) pubsub.Driver {
				d := opened(t, s.Options(), more)
				servers[d] = s
				return d
			}
			conform.PubSub(t, func(t *testing.T) pubsub.Driver { return open(t, <-fresh) }, setup(more != nil,
				func(t *testing.T, closed pubsub.Driver) pubsub.Driver { return open(t, servers[closed]) }))
		})
	}
}

func setup(fifo bool, reopen func(*testing.T, pubsub.Driver) pubsub.Driver) conform.PubSubSetup {
	return conform.PubSubSetup{Reopen: reopen, Unordered: !fifo, MaxBody: 190_000, GroupsByBroker: true, PollsCount: true}
}

func TestWatermill(t *testing.T) {
	conform.Watermill(t, func(t *testing.T) pubsub.Driver {
		// Only FIFO queues keep the order that the first row asks for.
		fifo := strconv.FormatBool(strings.HasSuffix(t.Name(), "in_order"))
		return opened(t, awsfake.Start(t).Options(), map[string]string{"fifo": fifo})
	})
}
