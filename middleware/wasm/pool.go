package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	page   = 64 << 10 // of a guest's memory
	maxLog = 4 << 10
	// beginTimeout is how long an instance may take to begin.
	beginTimeout = 10 * time.Second
	// maxSleep is how long a guest sleeps at once; nothing can end a sleep.
	maxSleep = 10 * time.Millisecond
)

// pool is the instances of one module. One is in one request at a time; those
// that failed are not used again.
type pool struct {
	log      *slog.Logger
	o        options
	runtime  wazero.Runtime
	release  func() error // what was compiled
	module   wazero.CompiledModule
	config   wazero.ModuleConfig
	features uint32        // that the guest asked for when it began
	slots    chan struct{} // one for each instance that may be there
	reported atomic.Int64  // when a failure was logged last

	mu     sync.Mutex // guards what follows
	idle   []*guest
	used   int
	closed bool
}

// guest is one instance.
type guest struct {
	module            api.Module
	request, response api.Function
	failed            bool
}

// newPool compiles a module, unless another component has the same one open, and
// makes the first instance. Kind Invalid for one that is no guest.
func newPool(ctx context.Context, env component.Env, o options, module []byte) (*pool, error) {
	compiled, release, err := compiledOnce(ctx, env.Shared, o.Memory, module)
	if err != nil {
		return nil, err
	}
	config := wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithMemoryLimitPages(uint32(o.Memory / page)).WithCompilationCache(compiled)
	p := &pool{
		log: env.Logger, o: o, runtime: wazero.NewRuntimeWithConfig(ctx, config), release: release, slots: make(chan struct{}, o.MaxInstances),
	}
	p.config = p.sandbox()
	if err := p.prepare(ctx, module); err != nil {
		_ = p.free(ctx) // what is told is why
		return nil, err
	}
	return p, nil
}

// compiledOnce is where a module is compiled to: one place for all that have the same
// bytes and limit of memory. It is there until the last of them is closed, so that a component which is
// replaced by another one with the same module does not compile it again, and no
// more is kept than is in use.
func compiledOnce(ctx context.Context, shared *component.Shared, memory component.Size, module []byte) (wazero.CompilationCache, func() error, error) {
	if shared == nil {
		shared = &component.Shared{}
	}
	return component.Share(shared, fmt.Sprintf("wasm:%d:%x", memory, sha256.Sum256(module)), func() (wazero.CompilationCache, func() error, error) {
		c := wazero.NewCompilationCache()
		return c, func() error { return c.Close(context.WithoutCancel(ctx)) }, nil
	})
}

// free gives everything back.
func (p *pool) free(ctx context.Context) error {
	return errors.Join(p.runtime.Close(context.WithoutCancel(ctx)), p.release())
}

// sandbox is what a guest has of the world.
func (p *pool) sandbox() wazero.ModuleConfig {
	c := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize", "_start").
		WithStdout(output{p}).WithStderr(output{p})
	if p.o.Strict {
		return c
	}
	return c.WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader).
		WithNanosleep(func(ns int64) { time.Sleep(min(time.Duration(ns), maxSleep)) })
}

func (p *pool) prepare(ctx context.Context, module []byte) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, p.runtime); err != nil {
		return fault.New(fault.Internal, "offer WASI: %w", err)
	}
	if err := p.offer(ctx); err != nil {
		return fault.New(fault.Internal, "offer %s: %w", hostName, err)
	}
	var err error
	if p.module, err = p.runtime.CompileModule(ctx, module); err != nil {
		return fault.New(fault.Invalid, "compile module: %w", err)
	}
	if err := suits(p.module); err != nil {
		return err
	}
	x := &exchange{pool: p}
	g, err := p.begin(ctx, x)
	if err != nil {
		return fault.As(fault.Invalid, err)
	}
	p.features, p.idle = x.features, []*guest{g}
	return nil
}

// suits tells whether a module has what a guest must have.
func suits(m wazero.CompiledModule) error {
	if _, ok := m.ExportedMemories()["memory"]; !ok {
		return fault.New(fault.Invalid, `load module: it exports no memory called "memory"`)
	}
	has := func(name string, params, results []api.ValueType) bool {
		f := m.ExportedFunctions()[name]
		return f != nil && bytes.Equal(f.ParamTypes(), params) && bytes.Equal(f.ResultTypes(), results)
	}
	if !has("handle_request", nil, []api.ValueType{i64}) || !has("handle_response", []api.ValueType{i32, i32}, nil) {
		return fault.New(fault.Invalid, "load module: it does not export handle_request and handle_response as http-wasm has them")
	}
	return nil
}

// begin makes an instance.
func (p *pool) begin(ctx context.Context, x *exchange) (*guest, error) {
	ctx, cancel := p.limited(ctx, x, beginTimeout)
	defer cancel()
	m, err := p.runtime.InstantiateModule(ctx, p.module, p.config)
	if exit, ok := errors.AsType[*sys.ExitError](err); ok && exit.ExitCode() == 0 {
		return nil, fault.New(fault.Internal, "begin guest: it is a program that ends; build a library, in Go with -buildmode=c-shared")
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "begin guest: %w", short(err))
	}
	return &guest{module: m, request: m.ExportedFunction("handle_request"), response: m.ExportedFunction("handle_response")}, nil
}

// limited is the context of a call: it ends when the guest's time is over, not
// with whoever asked, so that an instance is not lost with each that goes.
func (p *pool) limited(ctx context.Context, x *exchange, time time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), exchangeKey{}, x), time)
}

// take returns an instance, which must be given back. Kind Exhausted when all are
// busy for too long.
func (p *pool) take(ctx context.Context) (*guest, error) {
	select {
	case p.slots <- struct{}{}:
	default:
		wait := time.NewTimer(p.o.Timeout)
		defer wait.Stop()
		select {
		case p.slots <- struct{}{}:
		case <-wait.C:
			return nil, fault.New(fault.Exhausted, "take guest: all are busy")
		case <-ctx.Done():
			return nil, fault.New(fault.Exhausted, "take guest: %w", ctx.Err())
		}
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		<-p.slots
		return nil, fault.New(fault.Unavailable, "take guest: closed")
	}
	p.used++
	var g *guest
	if n := len(p.idle); n > 0 {
		g, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	p.mu.Unlock()
	if g != nil {
		return g, nil
	}
	g, err := p.begin(ctx, &exchange{pool: p})
	if err != nil {
		p.give(ctx, &guest{failed: true})
	}
	return g, err
}

// give takes an instance back. The last one of a closed pool frees everything.
func (p *pool) give(ctx context.Context, g *guest) {
	ctx = context.WithoutCancel(ctx) // closing frees memory and waits for nobody
	if g.failed && g.module != nil {
		_ = g.module.Close(ctx) // nothing of it is used again
	}
	p.mu.Lock()
	if !g.failed {
		p.idle = append(p.idle, g)
	}
	p.used--
	last := p.closed && p.used == 0
	p.mu.Unlock()
	<-p.slots
	if last {
		_ = p.free(ctx) // there is nobody to tell
	}
}

// close frees everything as soon as no instance is in a request any more, which
// is not waited for.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	first, idle := !p.closed, p.used == 0
	p.closed = true
	p.mu.Unlock()
	if !first || !idle {
		return nil
	}
	return p.free(ctx)
}

// report logs a failure of a guest, one in a second.
func (p *pool) report(err error) {
	now := time.Now().UnixNano()
	if last := p.reported.Load(); now-last >= int64(time.Second) && p.reported.CompareAndSwap(last, now) {
		p.log.Warn("A guest failed, and its request with it", "error", short(err))
	}
}

// short is the first line of an error: those of guests have a trace behind it.
func short(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(cut(text, 300))
}

func cut(text string, length int) string {
	return strings.ToValidUTF8(text[:min(len(text), length)], "\uFFFD")
}

// output is where a guest prints.
type output struct{ p *pool }

// Write implements [io.Writer].
func (o output) Write(b []byte) (int, error) {
	o.p.log.Debug("A guest prints", "text", strings.TrimRight(cut(string(b), maxLog), "\n"))
	return len(b), nil
}
