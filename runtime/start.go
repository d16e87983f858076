package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/config"
)

// load reads and checks the configuration; warnings are logged, errors end the
// start, all at once.
func (r *Runtime) load() (*config.Set, error) {
	set, problems := Load(r.o.Components, r.o.reader())
	errs, warnings := problems.Split(r.o.Strict)
	for _, w := range warnings {
		r.log.Warn("Configuration: " + w.String())
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	r.logSkipped(set)
	if len(set.Components) == 0 {
		r.log.Info("No components configured; "+defaultBus+" is a durable pub/sub in the data folder", "data_dir", r.o.DataDir)
	}
	return withDefaults(set, r.o.DataDir), nil
}

func (r *Runtime) logSkipped(set *config.Set) {
	for _, s := range set.Skipped {
		r.log.Warn("Configuration: not used by this version", "kind", s.Kind, "name", s.Name, "at", s.Place.String())
	}
}

// start opens every component and starts the routes that need no app.
func (r *Runtime) start(ctx, life context.Context, set *config.Set) error {
	r.parts.scopes = set.Configuration.SecretScopes
	ordered, problems := config.OpenOrder(set.Components)
	if err := problems.Err(); err != nil {
		return err
	}
	if err := r.openAll(ctx, life, ordered); err != nil {
		return err
	}
	r.serving.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set = set
	return r.applyRoutes(ctx)
}

// firstTry bounds how long the start waits for a component's first try to
// open; after that the component goes on in the background.
const firstTry = 2 * time.Second

// openAll opens the components: secret stores one after the other, the rest at
// once. It returns every error, not only the first.
func (r *Runtime) openAll(ctx, life context.Context, ordered []config.Component) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	open := func(c config.Component) {
		if err := r.open(ctx, life, c); err != nil {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		}
	}
	for _, c := range ordered {
		if isSecretStore(c) {
			open(c)
			continue
		}
		wg.Go(func() { open(c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func isSecretStore(c config.Component) bool {
	return len(c.Type) > 13 && c.Type[:13] == "secretstores."
}

// open opens one component and puts it in the table.
func (r *Runtime) open(ctx, life context.Context, c config.Component) error {
	wait, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	p, err := r.parts.open(wait, life, c)
	switch {
	case err == nil:
		r.parts.put(p)
		return nil
	case c.IgnoreErrors:
		r.log.Warn("Component ignored, as ignoreErrors says", "name", c.Name, "type", c.Type, "error", err)
		return nil
	default:
		return placed(c, err)
	}
}

// placed gives an error of a component its place in the configuration.
func placed(c config.Component, err error) error {
	if ps, ok := errors.AsType[config.Problems](err); ok {
		return ps
	}
	return config.Problems{{Place: c.Place, Text: fmt.Sprintf("open component %s (%s): %v", c.Name, c.Type, err)}}
}

// meetApp waits for the app's port, asks what it wants and starts the routes
// that deliver to it.
func (r *Runtime) meetApp(ctx, life context.Context) {
	r.log.Info("Waiting for the app", "port", r.o.App.Port)
	if err := r.app.WaitPort(ctx); err != nil {
		return
	}
	r.log.Info("Application discovered on port "+fmt.Sprint(r.o.App.Port), "protocol", r.o.App.Protocol)
	subs, err := r.client.Subscriptions(ctx)
	if err != nil && ctx.Err() == nil {
		r.log.Error("App did not say its subscriptions; only declared ones are used", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fromApp, r.appSeen = subs, true
	r.probeBindings(ctx)
	if err := r.applyRoutes(life); err != nil {
		r.log.Error("Route not started", "error", err)
	}
	r.announce()
}

// probeBindings asks the app which input bindings it takes.
func (r *Runtime) probeBindings(ctx context.Context) {
	for _, p := range r.parts.all() {
		if p.binding == nil || !p.binding.Input() {
			continue
		}
		name := p.config.Name
		if _, asked := r.wanted[name]; asked || r.pipelineReads(name) {
			continue
		}
		if p.binding.InputDeclared() {
			r.wanted[name] = true
			continue
		}
		want, err := r.client.WantsBinding(ctx, p.binding.Route())
		if err != nil {
			r.log.Warn("App did not answer whether it takes the binding; taken as yes", "name", name, "path", p.binding.Route(), "error", err)
			want = true
		}
		r.wanted[name] = want
		if !want {
			r.log.Info("App does not take events of input binding "+name, "path", p.binding.Route())
		}
	}
}

// pipelineReads tells whether a pipeline starts from the binding.
func (r *Runtime) pipelineReads(name string) bool {
	return slices.ContainsFunc(r.set.Pipelines, func(p config.Pipeline) bool { return p.From.Binding == name })
}

// announce says that the start is complete.
func (r *Runtime) announce() {
	r.ready.Store(true)
	r.log.Info("dapr initialized. Status: Running.")
}
