package rabbitmq

import (
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// suites runs what every pub/sub promises on a server.
func suites(t *testing.T, url string) {
	t.Helper()
	kept := map[string]string{"deletedWhenUnused": "false"}
	t.Run("conform", func(t *testing.T) {
		prefix := ""
		conform.PubSub(t, func(t *testing.T) pubsub.Driver {
			prefix = conform.Unique(t)
			t.Cleanup(func() { clean(t, url, prefix) })
			return conform.Apart(opened(t, url, kept), prefix)
		}, conform.PubSubSetup{
			Reopen:    func(t *testing.T, _ pubsub.Driver) pubsub.Driver { return conform.Apart(opened(t, url, kept), prefix) },
			Unordered: true, // across processes
		})
	})
	t.Run("watermill", func(t *testing.T) {
		conform.Watermill(t, func(t *testing.T) pubsub.Driver { return conform.Apart(opened(t, url, nil), conform.Unique(t)) })
	})
	t.Run("prepared", func(t *testing.T) {
		d := conform.Apart(opened(t, url, nil), conform.Unique(t))
		defer shut(t, d)
		conform.Prepared(t, d)
	})
}

// opened opens the component on a server.
func opened(t testing.TB, url string, options map[string]string) pubsub.Driver {
	t.Helper()
	d, err := tryOpen(t.Context(), url, options)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tryOpen(ctx context.Context, url string, options map[string]string) (pubsub.Driver, error) {
	all := map[string]string{"connectionString": url}
	maps.Copy(all, options)
	var items []config.Item
	for name, value := range all {
		items = append(items, config.Item{Name: name, Value: value})
	}
	env := component.Env{AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	d, err := Component.Open(ctx, env, items)
	if err != nil {
		return nil, err
	}
	return d.(pubsub.Driver), nil
}

func shut(t testing.TB, d pubsub.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// server connects as somebody else does.
func server(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// clean deletes what the suite has left behind.
func clean(t testing.TB, url, prefix string) {
	t.Helper()
	ch := server(t, url)
	for _, topic := range []string{"t", "a", "b"} {
		for _, group := range []string{"group", "a", "b", "g", "first", "second", "one", "two"} {
			if _, err := ch.QueueDelete(group+"-"+prefix+topic, false, false, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := ch.ExchangeDelete(prefix+topic, false, false); err != nil {
			t.Fatal(err)
		}
	}
}
