package runtime

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Opening is how one component opened when it was tried.
type Opening struct {
	Component config.Component // as written
	Took      time.Duration
	Err       error // nil: it is open
}

// Probe opens every component of a configuration once, as a start does, and closes
// it again; nothing is read, and no route runs. Of each it waits for the first try,
// most at the longest. Embedded storage goes to o.DataDir.
func Probe(ctx context.Context, o Options, set *config.Set, most time.Duration) ([]Opening, error) {
	o.Logger = slog.New(slog.DiscardHandler)
	r, err := New(o)
	if err != nil {
		return nil, err
	}
	ordered, problems := config.OpenOrder(set.Components)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	out := make([]Opening, len(ordered))
	var wg sync.WaitGroup
	for i, c := range ordered {
		out[i].Component = c
		if isSecretStore(c) { // others may need it
			out[i].Took, out[i].Err = r.probe(ctx, life, c, most)
			continue
		}
		wg.Go(func() { out[i].Took, out[i].Err = r.probe(ctx, life, c, most) })
	}
	wg.Wait()
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer stop()
	r.closeAll(closing, r.parts.all())
	return out, nil
}

// probe opens one component, which stays in the table.
func (r *Runtime) probe(ctx, life context.Context, c config.Component, most time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	began := time.Now()
	p, err := r.parts.open(ctx, life, c, nil)
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	r.parts.put(p)
	state := p.life.State()
	switch {
	case state.Word == component.Ready:
		return took, nil
	case state.LastError == "":
		return took, fault.New(fault.Timeout, "open component %s: it did not open within %s", c.Name, most)
	}
	return took, p.life.Wait(ctx)
}
