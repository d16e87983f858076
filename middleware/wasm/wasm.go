// Package wasm is the middleware "middleware.http.wasm": it lets a guest, a
// program in WebAssembly, look at requests and answers and change them.
//
// It is opened through [Component].
//
// The guest speaks the HTTP handler ABI of http-wasm. It reaches nothing but the
// request that it is called for: no files, no network, no environment. Its memory
// and its time are bounded, and so is the number of requests that are in guests.
// A guest that fails costs its own request, answered with 500, and nothing else.
package wasm

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("wasm", component.About{
	Summary: "Lets a program in WebAssembly look at requests and answers and change them",
	Limits:  "A module may have 64 MiB and is fetched in 30 s at most; an instance begins within 10 s. A guest keeps 4 MiB of a body and writes as much, reads as it arrives what it does not keep, and adds 64 KiB of headers. A log line has 4 KiB. An instance is in one request at a time, until its answer has ended; requests beyond maxInstances wait for the time that a guest may take and are answered with 503 then.",
	Scale:   "Every process has guests of its own.",
	Dapr:    "Memory, time and the number of instances have limits, which can be set. Trailers are not supported, and enable_features says so. The header Host can be read and not changed. A guest's standard output and error are log lines of level debug. Redirects of url are not followed.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: rewrite
spec:
  type: middleware.http.wasm
  version: v1
  metadata:
    - name: url
      value: file://rewrite.wasm
    - name: guestConfig
      value: '{"from": "/orders", "to": "/v1.0/invoke/shop/method/orders"}'
`,
}, open)

type options struct {
	URL          string         `meta:"url,required" doc:"Where the module is: file://, followed by a path that is relative unless it begins with /, or http:// or https://." example:"file://rewrite.wasm"`
	Config       string         `meta:"guestConfig" doc:"What the guest gets as its configuration; what it means is the guest's business."`
	Strict       bool           `meta:"strictSandbox" doc:"Give the guest a clock that stands still but for one step at each look, and random numbers that are always the same, so that it can measure nothing."`
	Memory       component.Size `meta:"memoryLimit" doc:"Memory of one instance, at least 64Ki and at most 1Gi." default:"32Mi"`
	Timeout      time.Duration  `meta:"timeout" doc:"How long a guest may take for a request, and again for its answer, the waiting for a body that it reads among it." default:"5s"`
	MaxInstances int            `meta:"maxInstances" doc:"How many instances there are at most, and so how many requests are in guests at a time; 1 to 1024." default:"32"`
}

// Check implements component.Checker.
func (o options) Check() error {
	_, _, err := o.source()
	var memory, timeout, instances error
	if o.Memory < page || o.Memory > 1<<30 {
		memory = component.OptionErrorf("memoryLimit", "must be at least 64Ki and at most 1Gi")
	}
	if o.Timeout <= 0 || o.Timeout > time.Hour {
		timeout = component.OptionErrorf("timeout", "must be more than 0 and at most an hour")
	}
	if o.MaxInstances < 1 || o.MaxInstances > 1024 {
		instances = component.OptionErrorf("maxInstances", "must be 1 to 1024")
	}
	return errors.Join(err, memory, timeout, instances)
}

type driver struct{ pool *pool }

func open(ctx context.Context, env component.Env, o options) (middleware.Driver, error) {
	module, err := o.load(ctx)
	if err != nil {
		return nil, err
	}
	p, err := newPool(ctx, env, o, module)
	if err != nil {
		return nil, err
	}
	return &driver{p}, nil
}

// Wrap implements middleware.Driver.
func (d *driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, err := d.pool.take(r.Context())
		if err != nil {
			w.Header().Set("Retry-After", "1")
			middleware.Respond(w, http.StatusServiceUnavailable, "no guest is free for the request")
			if fault.KindOf(err) != fault.Exhausted {
				d.pool.report(err)
			}
			return
		}
		defer d.pool.give(r.Context(), g)
		newExchange(d.pool, g, w, r).serve(next)
	})
}

// Close implements middleware.Driver.
func (d *driver) Close(ctx context.Context) error { return d.pool.close(ctx) }
