package pluggable_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

func env(name string) component.Env {
	return component.Env{AppID: "app", Name: name, Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
}

// openBus opens the pub/sub behind a socket.
func openBus(t *testing.T, dir string, items ...config.Item) pubsub.Driver {
	t.Helper()
	d, err := find(t, dir, "pubsub.plug").Open(t.Context(), env("bus"), items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(context.WithoutCancel(t.Context())) })
	return d.(pubsub.Driver)
}

// openBinding opens the binding behind a socket.
func openBinding(t *testing.T, dir, name string, items ...config.Item) *bindings.Binding {
	t.Helper()
	b, err := bindings.New(find(t, dir, "bindings.plug"), env(name), config.Component{Name: name, Type: "bindings.plug", Metadata: items})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Instance().Close(context.WithoutCancel(t.Context())) })
	if err := b.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// owned is a broker with a program of its own, which ends with it.
type owned struct {
	pubsub.Driver
	pubsub.Featured
	program *program
}

func (o owned) Close(ctx context.Context) error {
	defer o.program.kill()
	return o.Driver.Close(ctx)
}

func TestConformPubSub(t *testing.T) {
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		dir := folder(t)
		p := start(t, socket(dir, "plug"), newBus("MESSAGE_TTL", "BULK_PUBSUB", "SUBSCRIBE_WILDCARDS"))
		d, err := find(t, dir, "pubsub.plug").Open(t.Context(), env("bus"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return owned{d.(pubsub.Driver), d.(pubsub.Featured), p}
	}, conform.PubSubSetup{Unordered: true, NoAttempts: true})
}

// A message that was delayed has used up some of its time when the component
// gets it.
func TestTimeToLiveIsWhatIsLeft(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	p := start(t, socket(dir, "plug"), newBus("MESSAGE_TTL"))
	opened, err := find(t, dir, "pubsub.plug").Open(t.Context(), env("bus"), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := owned{opened.(pubsub.Driver), opened.(pubsub.Featured), p}
	defer d.Close(context.WithoutCancel(t.Context()))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	got := make(chan *cloudevents.Delivery, 16)
	done := make(chan error, 1)
	go func() {
		done <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
			x.Settle(cloudevents.Acked())
			select {
			case got <- x:
			default:
			}
			return nil
		})
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		m := pubsub.Message{Data: []byte("x"), Metadata: map[string]string{"TTLInSeconds": "7200", "ttl": "7200"}, Expires: time.Now().Add(30 * time.Second)}
		if err := d.Publish(ctx, "t", []pubsub.Message{m}); err != nil {
			t.Fatal(err)
		}
		select {
		case x := <-got:
			if left := x.Metadata["ttlInSeconds"]; left != "30" || x.Metadata["ttl"] != "" || x.Metadata["TTLInSeconds"] != "" {
				t.Errorf("metadata %v", x.Metadata)
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			return
		case <-tick.C: // the group was not there yet
		}
	}
}
