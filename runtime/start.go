package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
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
		r.log.Warn("Configuration: " + s.String())
	}
}

// start opens every component and starts the routes that need no app.
func (r *Runtime) start(ctx, life context.Context, set *config.Set) error {
	r.set = set
	r.parts.limit(set.Configuration.SecretScopes)
	r.parts.obey(set.Resiliencies)
	ordered, problems := config.OpenOrder(set.Components)
	if err := problems.Err(); err != nil {
		close(r.parted)
		return err
	}
	err := errors.Join(r.useNames(ctx, life, set.Configuration.Names), r.openAll(ctx, life, ordered), r.openEndpoints(ctx, set.HTTPEndpoints))
	close(r.parted)
	if err != nil {
		return err
	}
	r.awaitIdentity(ctx)
	if ctx.Err() == nil && r.parts.lacking() {
		r.refused = errLacking
	}
	r.delays.resume(ctx)
	r.serving.Store(true)
	r.applyRoutes(ctx, life)
	return r.wrongRoutes()
}

// errLacking makes tend read the configuration again until all components are
// there.
var errLacking = fault.New(fault.Unavailable, "open components: not all of them could be made")

// wrongRoutes returns what is wrong for good with routes that were not started.
// That something cannot be reached, or is left out because it may fail, is not.
func (r *Runtime) wrongRoutes() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.unstarted)) {
		if err := r.unstarted[name]; !fault.Retriable(err) && fault.KindOf(err) != fault.NotFound {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
		sums = sums(ordered)
	)
	open := func(c config.Component) {
		if err := r.open(ctx, life, c, sums[c.Name]); err != nil {
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
	kind, _, _ := strings.Cut(c.Type, ".")
	return strings.EqualFold(kind, "secretstores")
}

// open opens one component and puts it in the table.
func (r *Runtime) open(ctx, life context.Context, c config.Component, sum uint64) error {
	wait, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	p, err := r.parts.open(wait, life, c, nil)
	switch {
	case err == nil:
		p.sum = sum
		r.parts.put(p)
		return nil
	case c.IgnoreErrors:
		r.log.Warn("Component ignored, as ignoreErrors says", "name", c.Name, "type", c.Type, "error", err)
		return nil
	case fault.Retriable(err): // a secret store that cannot be reached yet
		r.log.Warn("Component not opened yet, trying again in the background", "name", c.Name, "type", c.Type, "error", err)
		r.parts.lack("component "+c.Name, err)
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
	p := config.Problem{Place: c.Place, Text: err.Error()}
	if !strings.HasPrefix(p.Text, "open component "+c.Name) {
		p.Text = fmt.Sprintf("open component %s: %s", c.Name, p.Text)
	}
	if c.Place.File == builtIn {
		p.Hint = "--data-dir names another folder"
	}
	return config.Problems{p}
}
