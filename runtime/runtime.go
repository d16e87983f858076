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
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/journal"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Runtime is one running instance.
type Runtime struct {
	o          Options
	log        *slog.Logger
	background background
	parts      *parts
	names      resolver
	delays     *delays
	router     *router.Router
	app        *app.App
	client     app.Channel
	hangUp     func() // frees the connections to the app
	api        *api.API
	calls      calls
	endpoints  *endpoints
	routes     *routes
	backlogs   *backlogs
	keeper     *deadletters.Keeper
	metrics    *telemetry.Metrics // nil: nothing is counted
	journal    *journal.Journal
	tracer     *trace.Tracer
	traced     *config.Tracing // what the tracer was told; nil: nothing yet

	// The middlewares of requests of the API, and of calls of the app.
	inbound, toApp *middleware.Pipeline

	started  atomic.Bool // everything that the start waits for has happened
	serving  atomic.Bool // outbound calls work
	stopping atomic.Bool
	parted   chan struct{} // closed when every component was made, or could not be
	shutdown chan bool     // true: forced
	draining chan struct{} // closed when no new events are taken any more
	ending   chan struct{} // closed when the routes are gone: nothing uses replaced parts any more
	tending  sync.WaitGroup
	retiring sync.WaitGroup

	// What makes tend do something; each holds at most one.
	edited chan struct{} // a file of the configuration is other than before
	opened chan struct{} // a component has opened
	turned chan struct{} // a secret of a component has another value
	back   chan struct{} // the app may be another one than before
	met    chan answer   // what the app said when it was asked

	// The configuration in use and what the app wants. Only start and, after
	// it, tend touch these.
	set     *config.Set
	fromApp []config.Subscription
	wanted  map[string]bool // input bindings the app takes
	appSeen bool
	said    bool  // the app said its subscriptions when it was asked last
	refused error // why the newest configuration is not in use, when that may pass

	// unturned are components that were not opened with their new secrets yet,
	// with the reason.
	unturned map[string]error
	// unturnedEndpoints are endpoints that cannot use their new secrets, with what
	// was said about it.
	unturnedEndpoints map[string]string

	streams streams

	// changing counts reloads and changes of routes under way.
	changing atomic.Int32

	// pausing is held while somebody pauses or resumes a route, or starts one.
	pausing sync.Mutex

	mu        sync.Mutex // guards what follows; never held while waiting
	running   map[string]running
	unstarted map[string]error // routes that should run and do not
	paused    map[string]bool  // routes that somebody paused, running or not
	unasked   error            // why the app's subscriptions are not known yet
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
		o: o, log: o.Logger, backlogs: newBacklogs(), parted: make(chan struct{}), shutdown: make(chan bool, 1), ending: make(chan struct{}), draining: make(chan struct{}),
		edited: make(chan struct{}, 1), opened: make(chan struct{}, 1), turned: make(chan struct{}, 1), back: make(chan struct{}, 1), met: make(chan answer),
		running: map[string]running{}, unstarted: map[string]error{}, streams: streams{open: map[string]*stream{}}, paused: map[string]bool{}, wanted: map[string]bool{},
		unturned: map[string]error{}, unturnedEndpoints: map[string]string{},
	}
	r.journal = journal.New(0)
	if len(o.Scrapes) > 0 {
		r.metrics = telemetry.NewMetrics(telemetry.Options{AppID: o.AppID, Namespace: o.Namespace})
	}
	r.tracer = trace.New(o.Logger)
	r.parts = &parts{
		list: o.Components, log: o.Logger, byName: map[string]*part{}, lacks: map[string]string{}, opened: func() { nudge(r.opened) },
		stale: map[string]bool{}, turned: func() { nudge(r.turned) },
		env: component.Env{AppID: o.AppID, Namespace: o.Namespace, DataDir: o.DataDir, Shared: &component.Shared{}, Metrics: r.metrics, Tracer: r.tracer},
	}
	r.endpoints = &endpoints{made: r.parted, byName: map[string]*endpoint{}}
	r.parts.endpoints = r.endpoints
	r.names.directory = names.New(telemetry.Part(o.Logger, "names"))
	r.delays = &delays{parts: r.parts}
	r.parts.delays = r.delays
	r.inbound, r.toApp = middleware.NewPipeline(r.parts.middlewareOf), middleware.NewPipeline(r.parts.middlewareOf)
	compiler := expr.New()
	r.parts.policies = newPolicies(compiler, telemetry.Part(o.Logger, "resilience"), r.metrics)
	var err error
	if r.router, err = router.New(router.Options{Logger: telemetry.Part(o.Logger, "router"), DrainTimeout: o.Grace, Observer: &observer{metrics: r.metrics, journal: r.journal, tracer: r.tracer, system: r.parts.kindOf}}); err != nil {
		return nil, err
	}
	if err := r.connectApp(); err != nil {
		return nil, err
	}
	r.routes = &routes{parts: r.parts, app: r.app, expr: compiler, delivered: &memory{env: r.parts.env, parts: r.parts}}
	r.keeper = r.newKeeper()
	r.api = api.New(o.AppID, r)
	r.metrics.Read(gauges(), r.readings)
	r.metrics.Read(spanCounts(), r.spans)
	return r, nil
}

// Run starts everything, serves until ctx ends or a shutdown is asked for, and
// stops in order. The error is a [config.Problems] when the configuration is
// wrong, [ErrForced] or [ErrGrace] for a stop that was not clean, or what kept
// it from listening.
func (r *Runtime) Run(ctx context.Context) error {
	began := time.Now()
	set, err := r.load()
	if err != nil {
		return err
	}
	if err := r.identify(set.Configuration.MTLS); err != nil {
		return err
	}
	r.connectCalls()
	r.beforeCalls(set.Configuration)
	if err := r.trace(ctx, set.Configuration.Tracing); err != nil {
		return err
	}
	defer r.endTraces(ctx)
	r.setPipelines(set)
	r.endpoints.declare(set.HTTPEndpoints)
	servers := r.listen()
	// Parts outlive ctx: they are stopped in order, after the events they
	// carry.
	life, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cut(errStopped)
	r.delays.begin(life)
	watching, stopWatching := context.WithCancel(ctx)
	defer r.background.end()
	defer stopWatching()
	r.background.begin(watching)

	if r.calls.identity != nil {
		tasks.Go(func() { _ = r.calls.identity.Run(life) }) // it only ends with life
	}
	failed := make(chan error, 2)
	tasks.Go(func() { failed <- servers.run(life) })
	tasks.Go(func() { failed <- r.router.Run(life) })
	if err := r.start(ctx, life, set); err != nil && ctx.Err() == nil {
		return errors.Join(err, r.stop(life, servers, r.o.Grace))
	}
	r.log.Info("Penstock is up", "took", time.Since(began).Round(time.Millisecond).String())
	r.lookAfter(watching, life, set)
	if len(r.o.Internal) > 0 {
		r.tending.Go(func() { _ = r.BeFound(watching, portOf(r.o.Internal)) }) // it only ends with watching
	}
	if r.app != nil {
		tasks.Go(func() { r.app.RunHealth(life) })
		r.tending.Go(func() { r.meetApp(watching) })
	} else {
		r.announce()
	}
	err, forced := r.await(ctx, failed)
	r.stopping.Store(true)
	stopWatching()
	if forced {
		_ = r.stop(life, servers, 0) // that it was cut short is what was asked for
		return ErrForced
	}
	return errors.Join(err, r.stop(life, servers, r.o.Grace))
}

// lookAfter starts what goes on as long as the instance runs.
func (r *Runtime) lookAfter(watching, life context.Context, set *config.Set) {
	r.tending.Go(func() { r.watch(watching, set) })
	r.tending.Go(func() { r.tend(watching, life) })
	r.tending.Go(func() { r.backlogs.run(watching, r.routeNames) })
}

// await returns when it is time to stop: with an error when something broke.
func (r *Runtime) await(ctx context.Context, failed <-chan error) (err error, forced bool) {
	select {
	case err := <-failed:
		return err, false
	case forced := <-r.shutdown:
		if forced {
			return nil, true
		}
		r.log.Info("Shutdown asked for through the API")
	case <-ctx.Done():
		r.log.Info("Received signal; shutting down", "grace", r.o.Grace.String())
	}
	return r.holdOff(failed)
}

// errStopped is the cause of everything cut at the end of Run.
var errStopped = errors.New("stopped")

// holdOff keeps everything going for the block-shutdown time, or until the app
// is unhealthy, something breaks or a forced shutdown is asked for.
func (r *Runtime) holdOff(failed <-chan error) (err error, forced bool) {
	if r.o.BlockShutdown <= 0 {
		return nil, false
	}
	r.log.Info("Blocking shutdown", "for", r.o.BlockShutdown.String())
	end := time.NewTimer(r.o.BlockShutdown)
	defer end.Stop()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return nil, false
		case err := <-failed:
			return err, false
		case forced := <-r.shutdown:
			if forced {
				return nil, true
			}
		case <-look.C:
			if r.app != nil && !r.app.Healthy() {
				return nil, false
			}
		}
	}
}

// Draining is closed when Run has begun to stop and no new events are taken,
// after the block-shutdown time. An app must not be told to end before that.
func (r *Runtime) Draining() <-chan struct{} { return r.draining }

// stop is the two-step end: no new events, finish what is held for the grace
// time, then close. The API stays up while events drain, because the app may
// call it.
func (r *Runtime) stop(ctx context.Context, s *servers, limit time.Duration) error {
	r.stopping.Store(true)
	close(r.draining)
	r.keeper.Stop()
	grace, cancel := context.WithTimeoutCause(ctx, limit, ErrGrace)
	defer cancel()
	var failed error
	if err := r.router.Drain(grace); err != nil || grace.Err() != nil {
		failed = errors.Join(ErrGrace, err)
	}
	r.journal.End()
	s.shutdown(grace)
	// A change of the configuration that was under way ends by itself: its
	// routes are gone and its context has ended.
	r.tending.Wait()
	close(r.ending)
	r.retiring.Wait()
	// Closing gets a little time of its own: a drain that used up the grace
	// must not keep the acknowledgements from being written.
	if err := r.keeper.Close(); err != nil {
		r.log.Warn("Dead letters did not close cleanly", "error", err)
	}
	closing, cancelClosing := context.WithTimeout(ctx, closeTime)
	defer cancelClosing()
	r.closeNames(closing)
	r.closeAll(closing, r.parts.all())
	if err := r.delays.close(closing); err != nil {
		r.log.Warn("Delay queue did not close cleanly", "error", err)
	}
	if err := r.routes.delivered.close(); err != nil {
		r.log.Warn("Memory of delivered events did not close cleanly", "error", err)
	}
	r.closeCalls()
	if r.hangUp != nil {
		r.hangUp()
	}
	r.log.Info("Penstock is down")
	return failed
}

// closeTime bounds the closing of all components.
const closeTime = 5 * time.Second
