// Package middleware is the contract of HTTP middleware: what stands between a
// caller and the API, or between Penstock and the app.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else uses [Handler], one configured middleware, and [Pipeline], a
// list of them around an [http.Handler].
//
// A middleware that is named and not there, or not open, lets no request
// through: it answers 503. A handler may be replaced, and a pipeline changed,
// while requests pass; those under way go on as they began. Nothing here reads
// or keeps a body.
package middleware

import (
	"context"
	"net/http"

	"github.com/penstock-io/penstock/component"
)

// Driver is what an implementation returns from its open function.
type Driver interface {
	// Wrap returns a handler that does its work and calls next, or answers
	// itself. It is called once for each pipeline that the middleware stands
	// in, perhaps by several goroutines at once; the handler keeps nothing of a
	// request after it has returned, and does not read a body further than its
	// documentation says.
	//
	// What it changes of a request it changes in a copy, so that those before it
	// see the request that they passed on.
	Wrap(next http.Handler) http.Handler
	// Close frees everything. Handlers that still run go on to their end.
	Close(ctx context.Context) error
}

// Define makes the definition of a middleware called "middleware.http.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define("middleware.http."+name, about, nil, open)
}
