// Package routeralias is the middleware "middleware.http.routeralias": it gives
// requests of one path another one.
//
// It is opened through [Component].
//
// A path with an escaped slash is nobody's alias: decoded, it would be another
// path than the one that was sent. The most specific route wins: one without
// variables, then the one with the longest text.
package routeralias

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("routeralias", component.About{
	Summary: "Gives requests of one path another one",
	Limits:  "1,000 routes; they are tried one after the other.",
	Scale:   "Every process does it by itself.",
	Dapr:    "Of several routes that match, Dapr takes any; here it is the most specific one. A new path is one as in a URL, with escapes. The API token is asked for by the old path and by the new one.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: names
spec:
  type: middleware.http.routeralias
  version: v1
  metadata:
    - name: routes
      value: |
        {
          "/orders/{topic}": "/v1.0/publish/orders/new",
          "/ready": "/v1.0/healthz"
        }
`,
}, open)

type options struct {
	Routes string            `meta:"routes" doc:"Mapping, in JSON or YAML, of paths to the paths that take their place. {name} stands for one part of a path, {name:REGEXP} for what matches; they are added to the query." example:"{\"/orders/{id}\": \"/v1.0/invoke/shop/method/orders\"}"`
	Old    map[string]string `meta:"*" doc:"Routes one by one, as older files have them; used when there is more than routes."`
}

// Check implements component.Checker.
func (o options) Check() error {
	_, err := o.table()
	return err
}

// maxRoutes bounds the table.
const maxRoutes = 1000

// table reads the routes, in the order in which they are tried.
func (o options) table() ([]route, error) {
	pairs, err := config.ReadTexts(o.Routes)
	if err != nil {
		return nil, component.OptionErrorf("routes", "cannot be read: %w", err)
	}
	if len(o.Old) > 0 {
		if o.Routes != "" {
			other := slices.Min(slices.Collect(maps.Keys(o.Old)))
			return nil, component.OptionErrorf("routes", "stands beside the option %q; a route of its own belongs into routes", other)
		}
		pairs = o.Old
	}
	if len(pairs) > maxRoutes {
		return nil, component.OptionErrorf("routes", "has %d routes, %d is the limit", len(pairs), maxRoutes)
	}
	var table []route
	var errs []error
	for from, to := range pairs {
		r, err := newRoute(from, to)
		if err != nil {
			errs = append(errs, component.OptionErrorf("routes", "%q to %q: %w", from, to, err))
			continue
		}
		table = append(table, r)
	}
	slices.SortFunc(table, func(a, b route) int {
		return cmp.Or(min(len(a.names), 1)-min(len(b.names), 1), b.literal-a.literal, strings.Compare(a.from, b.from))
	})
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return table, errors.Join(errs...)
}

type driver struct{ table []route }

func open(_ context.Context, _ component.Env, o options) (middleware.Driver, error) {
	table, err := o.table()
	if err != nil {
		return nil, err
	}
	return driver{table}, nil
}

// Wrap implements middleware.Driver.
func (d driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, d.renamed(r))
	})
}

// Close implements middleware.Driver.
func (driver) Close(context.Context) error { return nil }

// renamed returns the request with its other path, or as it is.
func (d driver) renamed(r *http.Request) *http.Request {
	path, ok := readable(r.URL)
	if !ok {
		return r
	}
	for _, route := range d.table {
		values, ok := route.match(path)
		if !ok {
			continue
		}
		out := r.WithContext(r.Context())
		u := *r.URL
		u.Path, u.RawPath = route.to.Path, route.to.RawPath
		if len(values) > 0 {
			if u.RawQuery != "" {
				u.RawQuery += "&"
			}
			u.RawQuery += values.Encode()
		}
		out.URL, out.RequestURI = &u, u.RequestURI()
		return out
	}
	return r
}

// readable returns the decoded path, unless it has an escaped slash.
func readable(u *url.URL) (string, bool) {
	raw := middleware.Path(u)
	if strings.Contains(raw, "%2F") || strings.Contains(raw, "%2f") {
		return "", false
	}
	path, err := url.PathUnescape(raw)
	return path, err == nil
}
