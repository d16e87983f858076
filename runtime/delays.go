package runtime

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
)

// delayFile holds, in the data folder, the messages that brokers cannot delay.
const delayFile = "delayed.db"

// delays opens the delay queue when it is first needed: with the first delayed
// message for a broker that cannot delay, or at the start when there is a file
// of an earlier run. It is no component that anybody can name.
type delays struct {
	parts *parts

	mu   sync.Mutex
	life context.Context // nil until the start, and again when closed
	part *part           // nil until needed
	kept *pubsub.DelayQueue
}

// begin allows opening, for as long as life lasts.
func (ds *delays) begin(life context.Context) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.life = life
}

// Delay implements pubsub.Delayer.
func (ds *delays) Delay(ctx context.Context, bus, topic string, batch []pubsub.Message) error {
	q, err := ds.open(ctx)
	if err == nil {
		err = q.Delay(ctx, bus, topic, batch)
	}
	return fault.Wrap(err, "delay message")
}

// open returns the queue, open.
func (ds *delays) open(ctx context.Context) (*pubsub.DelayQueue, error) {
	p, q, err := ds.get()
	if err != nil {
		return nil, err
	}
	if err := p.life.Wait(ctx); err != nil {
		return nil, fault.As(fault.Unavailable, err) // whatever it is, it is not the message's fault
	}
	return q, nil
}

// get begins to open the queue unless that was done.
func (ds *delays) get() (*part, *pubsub.DelayQueue, error) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	switch {
	case ds.life == nil:
		return nil, nil, fault.New(fault.Unavailable, "open delay queue: not started")
	case ds.part != nil && ds.part.life.State().Word != component.Failed:
		return ds.part, ds.kept, nil
	}
	p, err := ds.parts.make(config.Component{
		Name: "delay", Type: "pubsub.sqlite", Version: "v1",
		Metadata: []config.Item{{Name: "connectionString", Value: ds.file()}},
	})
	if err != nil {
		return nil, nil, fault.Wrap(err, "open delay queue")
	}
	p.start(ds.life, ds.parts.log, ds.parts.opened)
	ds.part, ds.kept = p, pubsub.NewDelayQueue(p.bus)
	return p, ds.kept, nil
}

func (ds *delays) file() string { return filepath.Join(ds.parts.env.DataDir, delayFile) }

// resume opens the queue when an earlier run left one behind. One that does not
// open goes on trying in the background.
func (ds *delays) resume(ctx context.Context) {
	if _, err := os.Stat(ds.file()); errors.Is(err, fs.ErrNotExist) {
		return
	}
	if _, err := ds.open(ctx); err != nil {
		ds.parts.log.Warn("Delayed messages of an earlier run cannot be read yet", "file", ds.file(), "error", err)
	}
}

// state returns the queue when it is open; waiting tells that it should be.
func (ds *delays) state() (q *pubsub.DelayQueue, waiting bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	switch {
	case ds.part == nil:
		return nil, false
	case ds.part.ready():
		return ds.kept, false
	}
	return nil, true
}

// close frees the file; nothing is delayed any more.
func (ds *delays) close(ctx context.Context) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.life = nil
	if ds.part == nil {
		return nil
	}
	return ds.part.close(ctx)
}

// wishDelays adds a route for each broker that publishes what was kept for it,
// once there is a queue.
func (r *Runtime) wishDelays(out map[string]wish, waiting map[string]error) {
	q, late := r.delays.state()
	if late {
		waiting["delay"] = errClosed
	}
	if q == nil {
		return
	}
	for _, p := range r.parts.all() {
		if p.bus == nil || !p.ready() {
			continue
		}
		name := p.config.Name
		out["delay/"+name] = wish{make: func(ctx context.Context) (router.Route, error) { return r.routes.delayed(ctx, q, name) }}
	}
}

// delayed makes the route from the delay queue to a broker.
func (rs *routes) delayed(ctx context.Context, q *pubsub.DelayQueue, bus string) (router.Route, error) {
	src := q.Source(bus)
	return router.Route{
		Name: "delay/" + bus, Source: src, Lanes: defaultLanes, GiveBack: true,
		Targets: []router.Target{{
			Name: "pubsub:" + bus, Send: toBroker(rs.parts, bus), Policy: resilience.Policy{Timeout: defaultTimeout},
		}},
	}, src.Prepare(ctx)
}

// toBroker publishes a message whose time has come.
func toBroker(ps *parts, name string) sendFunc {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		bus, err := ps.bus(name)
		if err == nil {
			err = bus.PublishDue(ctx, d)
		}
		return outcomeOf(ps.held(name, err))
	}
}
