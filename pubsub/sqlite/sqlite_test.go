package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// openAt opens the component on a file, as a process of its own would.
func openAt(t testing.TB, path string, items ...config.Item) *driver {
	t.Helper()
	items = append(items, config.Item{Name: "connectionString", Value: path})
	d, err := Component.Open(t.Context(), component.Env{}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(*driver)
}

func TestConform(t *testing.T) {
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		t.Helper()
		return openAt(t, filepath.Join(t.TempDir(), "bus.db"))
	}, conform.PubSubSetup{
		KeepsEarly: true,
		Reopen: func(t *testing.T, closed pubsub.Driver) pubsub.Driver {
			t.Helper()
			return openAt(t, closed.(*driver).b.db.Path())
		},
	})
}
