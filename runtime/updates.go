package runtime

import (
	"context"
	"log/slog"
	"sync"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
)

// background runs tasks of the API for as long as the instance serves.
type background struct {
	mu    sync.Mutex
	run   func(task func(context.Context)) // nil: none may begin
	tasks sync.WaitGroup
}

// begin lets tasks begin, whose context is ctx.
func (b *background) begin(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run = func(task func(context.Context)) { b.tasks.Go(func() { task(ctx) }) }
}

// end waits for the tasks; their context must have ended.
func (b *background) end() {
	b.mu.Lock()
	b.run = nil
	b.mu.Unlock()
	b.tasks.Wait()
}

// Background implements api.Updates.
func (r *Runtime) Background(task func(context.Context)) error {
	if r.app == nil {
		return fault.New(fault.NotFound, "there is no app to tell; give its port with --app-port")
	}
	r.background.mu.Lock()
	defer r.background.mu.Unlock()
	if r.background.run == nil {
		return fault.New(fault.Unavailable, "this instance is starting or stopping")
	}
	r.background.run(task)
	return nil
}

// TellApp implements api.Updates.
func (r *Runtime) TellApp(ctx context.Context, store, key string, body []byte) error {
	if r.app == nil {
		return fault.New(fault.NotFound, "there is no app to tell")
	}
	policy := r.parts.policies.of(way{store, configurationPolicies, config.Inbound})
	tell := func(ctx context.Context) error { return r.app.Configuration(ctx, store, key, body) }
	if policy != nil {
		return policy.Do(ctx, tell)
	}
	return tell(ctx)
}

// Logger implements api.Updates.
func (r *Runtime) Logger() *slog.Logger { return telemetry.Part(r.log, "api") }
