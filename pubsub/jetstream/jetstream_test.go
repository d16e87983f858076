package jetstream

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

func TestMain(m *testing.M) { os.Exit(natsserver.Main(m)) }

// opened opens the component on a server.
func opened(t testing.TB, url string, more ...string) *driver {
	t.Helper()
	d, err := tried(t, url, more...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tried(t testing.TB, url string, more ...string) (*driver, error) {
	t.Helper()
	items := []config.Item{{Name: "natsURL", Value: url}}
	for i := 0; i+1 < len(more); i += 2 {
		items = append(items, config.Item{Name: more[i], Value: more[i+1]})
	}
	env := component.Env{AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		return nil, err
	}
	return d.(*driver), nil
}

func closed(t testing.TB, d pubsub.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// fresh gives each driver topics of its own on one server.
func fresh(url string) func(t *testing.T) pubsub.Driver {
	return func(t *testing.T) pubsub.Driver {
		t.Helper()
		return conform.Apart(opened(t, url), conform.Unique(t)+".")
	}
}

func TestConform(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	prefix := ""
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		t.Helper()
		prefix = conform.Unique(t) + "."
		return conform.Apart(opened(t, url), prefix)
	}, conform.PubSubSetup{
		Unordered: true, Patience: 20 * time.Second,
		Reopen: func(t *testing.T, _ pubsub.Driver) pubsub.Driver {
			t.Helper()
			return conform.Apart(opened(t, url), prefix)
		},
	})
}

func TestWatermillSuite(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	conform.Watermill(t, fresh(url))
}

func TestPrepare(t *testing.T) {
	d := opened(t, natsserver.Start(t, natsserver.Options{}).URL(), "deliverPolicy", "new")
	defer closed(t, d)
	conform.Prepared(t, d)
}
