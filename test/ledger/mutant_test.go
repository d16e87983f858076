package ledger

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/pubsub/sqlite"
	"github.com/penstock-io/penstock/runtime"
)

// mutantVariable makes this test binary a penstock whose broker does wrong.
const mutantVariable = "PENSTOCK_LEDGER_MUTANT"

// mutant runs the mutant that the environment names, until SIGTERM. It returns
// false when none is named.
func mutant() bool {
	kind := os.Getenv(mutantVariable)
	if kind == "" {
		return false
	}
	if err := runMutant(kind, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// runMutant understands the flags of penstock serve that [run.sidecar] gives.
func runMutant(kind string, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	id, data, resources := flags.String("app-id", "", ""), flags.String("data-dir", "", ""), flags.String("resources-path", "", "")
	app, port := flags.Int("app-port", 0, ""), flags.Int("dapr-http-port", 0, "")
	flags.Int("dapr-grpc-port", 0, "")
	flags.Int("dapr-graceful-shutdown-seconds", 0, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	rt, err := runtime.New(runtime.Options{
		AppID: *id, DataDir: *data, Resources: []string{*resources}, Components: component.List{mutantComponent(kind)},
		Listeners: []net.Listener{l}, App: runtime.AppOptions{Port: *app, Protocol: "http"},
	})
	if err != nil {
		return err
	}
	return rt.Run(ctx)
}

type noOptions struct{}

// mutantComponent is pubsub.sqlite with a fault.
func mutantComponent(kind string) component.Definition {
	return pubsub.Define("mutant", component.About{}, func(ctx context.Context, env component.Env, _ noOptions) (pubsub.Driver, error) {
		d, err := sqlite.Component.Open(ctx, env, nil)
		if err != nil {
			return nil, err
		}
		return &wrong{Driver: d.(pubsub.Driver), kind: kind, kept: map[string]pubsub.Message{}, under: map[*cloudevents.Delivery]func(cloudevents.Outcome){}}, nil
	})
}

// wrong is a driver that does one thing wrong.
type wrong struct {
	pubsub.Driver
	kind      string
	published atomic.Int64
	emitted   atomic.Int64

	mu    sync.Mutex
	kept  map[string]pubsub.Message // by key: "swap" publishes it after the next
	under map[*cloudevents.Delivery]func(cloudevents.Outcome)
}

// Features implements pubsub.Featured.
func (w *wrong) Features() pubsub.Features { return w.Driver.(pubsub.Featured).Features() }

// Prepare implements pubsub.Preparer.
func (w *wrong) Prepare(ctx context.Context, s pubsub.Subscription) error {
	return w.Driver.(pubsub.Preparer).Prepare(ctx, s)
}

// Publish loses, swaps or spoils now and then.
func (w *wrong) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	n := w.published.Add(1)
	switch {
	case w.kind == "lose a publish" && n%100 == 0:
		return nil
	case w.kind == "corrupt a byte" && n%100 == 0:
		batch[0].Data = bytes.Replace(batch[0].Data, []byte(`"pad":"x`), []byte(`"pad":"y`), 1)
	case w.kind == "swap two":
		batch = w.swap(batch[0])
	}
	if len(batch) == 0 {
		return nil
	}
	return w.Driver.Publish(ctx, topic, batch)
}

// swap keeps the first message of a key and publishes it after the second.
func (w *wrong) swap(m pubsub.Message) []pubsub.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, waits := w.kept[m.Key]
	switch {
	case waits:
		w.kept[m.Key] = pubsub.Message{}
		if first.Data == nil {
			return []pubsub.Message{m}
		}
		return []pubsub.Message{m, first}
	default:
		w.kept[m.Key] = m
		return nil
	}
}

// Subscribe acknowledges, drops, doubles or dead-letters what it should not.
func (w *wrong) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	err := w.Driver.Subscribe(ctx, s, func(ctx context.Context, d *cloudevents.Delivery) error {
		n := w.emitted.Add(1)
		switch {
		case w.kind == "ack early":
			d.Settle(cloudevents.Acked())
			d.Settle = func(cloudevents.Outcome) {}
		case w.kind == "never ack" && n%100 == 0:
			d.Settle = func(cloudevents.Outcome) {}
		case w.kind == "drop one in 1000" && n%1000 == 0:
			d.Settle(cloudevents.Acked())
			return nil
		case w.kind == "duplicate" && n%100 == 0:
			again := *d
			again.Settle = func(cloudevents.Outcome) {}
			if err := emit(ctx, &again); err != nil {
				return err
			}
		case w.kind == "dead-letter on shutdown" && !strings.HasSuffix(s.Topic, "-dead"):
			w.watch(d)
		}
		return emit(ctx, d)
	})
	if w.kind == "dead-letter on shutdown" && !strings.HasSuffix(s.Topic, "-dead") {
		w.bury(context.WithoutCancel(ctx), s.Topic+"-dead")
	}
	return err
}

// watch keeps a delivery until it is settled.
func (w *wrong) watch(d *cloudevents.Delivery) {
	settle := d.Settle
	w.mu.Lock()
	defer w.mu.Unlock()
	w.under[d] = settle
	d.Settle = func(o cloudevents.Outcome) {
		w.mu.Lock()
		_, mine := w.under[d]
		delete(w.under, d)
		w.mu.Unlock()
		if mine {
			settle(o)
		}
	}
}

// bury takes a stop for a failure of what is under way.
func (w *wrong) bury(ctx context.Context, topic string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for d, settle := range w.under {
		if w.Driver.Publish(ctx, topic, []pubsub.Message{{Data: d.Body, Key: d.Key}}) == nil {
			settle(cloudevents.Acked())
		}
	}
	clear(w.under)
}
