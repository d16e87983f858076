// Package runtime is one running instance built from a configuration: the
// order in which things start, change and stop.
//
// A caller fills [Options], makes a [Runtime] with [New] and calls Run, which
// blocks until its context ends or the API asks for a shutdown.
//
// The package promises that a wrong configuration ends the start with every
// error listed while an unreachable server does not; that a reload swaps in
// what is good and leaves everything as it was when something is bad; and that
// a stop neither loses nor dead-letters an event: what is not finished within
// the grace period stays with its source.
package runtime

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/router"
)

// Runtime is one running instance.
type Runtime struct {
	o      Options
	log    *slog.Logger
	parts  *parts
	router *router.Router
	app    *app.App
	client app.Channel
	hangUp func() // frees the connections to the app
	api    *api.API
	routes *routes

	ready    atomic.Bool // everything that the start waits for has happened
	serving  atomic.Bool // outbound calls work
	shutdown chan bool   // true: forced
	retiring sync.WaitGroup

	mu      sync.Mutex // one change of the configuration at a time
	set     *config.Set
	running map[string]running // by route name
	fromApp []config.Subscription
	wanted  map[string]bool // input bindings the app takes
	appSeen bool
}

// ErrForced is returned by Run when a shutdown was forced.
var ErrForced = errors.New("stop: forced by the shutdown API")

// ErrGrace is returned by Run when something did not finish within the grace
// period; what was under way stays with its source.
var ErrGrace = errors.New("stop: grace period is over")

// New makes a runtime. Nothing is read or opened before Run.
func New(o Options) (*Runtime, error) {
	o.setDefaults()
	r := &Runtime{
		o: o, log: o.Logger, shutdown: make(chan bool, 1),
		running: map[string]running{}, wanted: map[string]bool{},
	}
	r.parts = &parts{
		list: o.Components, log: o.Logger, byName: map[string]*part{},
		env: component.Env{AppID: o.AppID, Namespace: o.Namespace, DataDir: o.DataDir, Shared: &component.Shared{}},
	}
	var err error
	if r.router, err = router.New(router.Options{Logger: o.Logger, DrainTimeout: o.Grace}); err != nil {
		return nil, err
	}
	if err := r.connectApp(); err != nil {
		return nil, err
	}
	r.routes = &routes{parts: r.parts, app: r.app, expr: expr.New()}
	r.api = api.New(o.AppID, r)
	return r, nil
}

// Run starts everything, serves until ctx ends or a shutdown is asked for, and
// stops in order. The error is a [config.Problems] when the configuration is
// wrong, [ErrForced] or [ErrGrace] for a stop that was not clean, or what kept
// it from listening.
func (r *Runtime) Run(ctx context.Context) error {
	started := time.Now()
	set, err := r.load()
	if err != nil {
		return err
	}
	servers := r.listen()
	// Parts outlive ctx: they are stopped in order, after the events they
	// carry.
	life, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cut(errStopped)

	failed := make(chan error, 2)
	tasks.Go(func() { failed <- servers.run(life) })
	tasks.Go(func() { failed <- r.router.Run(life) })
	if err := r.start(ctx, life, set); err != nil {
		cut(err)
		return err
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	tasks.Go(func() { r.watch(watching, life) })
	tasks.Go(func() { r.reloadOnDemand(watching, life) })
	r.log.Info("Penstock is up", "took", time.Since(started).Round(time.Millisecond).String())
	if r.app != nil {
		tasks.Go(func() { r.app.RunHealth(life) })
		tasks.Go(func() { r.meetApp(watching, life) })
	} else {
		r.announce()
	}

	select {
	case err := <-failed:
		stopWatching()
		return errors.Join(err, r.stop(life, servers))
	case forced := <-r.shutdown:
		if forced {
			return ErrForced
		}
		r.log.Info("Shutdown asked for through the API")
	case <-ctx.Done():
		r.log.Info("Received signal; shutting down", "grace", r.o.Grace.String())
	}
	r.holdOff(life)
	stopWatching()
	return r.stop(life, servers)
}

// errStopped is the cause of everything cut at the end of Run.
var errStopped = errors.New("stopped")

// holdOff keeps everything going for the block-shutdown time, or until the app
// is unhealthy.
func (r *Runtime) holdOff(ctx context.Context) {
	if r.o.BlockShutdown <= 0 {
		return
	}
	r.log.Info("Blocking shutdown", "for", r.o.BlockShutdown.String())
	end := time.NewTimer(r.o.BlockShutdown)
	defer end.Stop()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return
		case <-ctx.Done():
			return
		case <-look.C:
			if r.app != nil && !r.app.Healthy() {
				return
			}
		}
	}
}

// stop is the two-step end: no new events, finish what is held, then close.
// The API stays up while events drain, because the app may call it.
func (r *Runtime) stop(ctx context.Context, s *servers) error {
	r.ready.Store(false)
	grace, cancel := context.WithTimeoutCause(ctx, r.o.Grace, ErrGrace)
	defer cancel()
	var failed error
	if err := r.router.Drain(grace); err != nil {
		failed = errors.Join(ErrGrace, err)
	}
	s.shutdown(grace)
	r.retiring.Wait()
	// Closing gets a little time of its own: a drain that used up the grace
	// must not keep the acknowledgements from being written.
	closing, cancelClosing := context.WithTimeout(ctx, closeTime)
	defer cancelClosing()
	for _, p := range r.parts.all() {
		r.parts.take(p.config.Name)
		if err := p.close(closing); err != nil {
			r.log.Warn("Component did not close cleanly", "name", p.config.Name, "error", err)
		}
	}
	if r.hangUp != nil {
		r.hangUp()
	}
	r.log.Info("Penstock is down")
	return failed
}

// closeTime bounds the closing of all components.
const closeTime = 5 * time.Second
