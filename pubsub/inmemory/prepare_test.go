package inmemory

import (
	"context"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/test/conform"
)

func TestPrepare(t *testing.T) {
	t.Parallel()
	d, err := open(t.Context(), component.Env{}, roomy)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.WithoutCancel(t.Context()))
	conform.Prepared(t, d)
}

// TestReopenedBrokerKeepsMessages is the reload of a component: the new one is
// opened before the old one is closed.
func TestReopenedBrokerKeepsMessages(t *testing.T) {
	t.Parallel()
	env := component.Env{Name: "bus", Shared: &component.Shared{}}
	ctx := context.WithoutCancel(t.Context())
	old, err := open(ctx, env, roomy)
	if err != nil {
		t.Fatal(err)
	}
	q := detached(t, old.(*handle).broker)
	if err := old.Publish(ctx, "t", message("", "kept")); err != nil {
		t.Fatal(err)
	}
	fresh, err := open(ctx, env, roomy)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if q.count != 1 || fresh.(*handle).broker != old.(*handle).broker {
		t.Errorf("the new broker holds %d messages, want 1", q.count)
	}
	if err := fresh.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Publish(ctx, "t", message("", "late")); err == nil {
		t.Error("the last close did not close the broker")
	}
}
