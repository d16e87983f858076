package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

func TestBacklogIsTold(t *testing.T) {
	t.Parallel()
	d := openAt(t, filepath.Join(t.TempDir(), "bus.db"))
	s := pubsub.Subscription{Topic: "orders", Group: "g"}
	count := func() cloudevents.Backlog {
		t.Helper()
		b, err := d.Backlog(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := count(); b != (cloudevents.Backlog{}) {
		t.Errorf("without a group %+v", b)
	}
	if err := d.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Truncate(time.Millisecond)
	for range 3 {
		if err := d.Publish(t.Context(), "orders", []pubsub.Message{{Data: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	if b := count(); b.Messages != 3 || b.Oldest.Before(began) || b.Oldest.After(time.Now()) {
		t.Errorf("three messages are %+v", b)
	}
}
