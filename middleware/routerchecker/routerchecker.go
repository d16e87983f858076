// Package routerchecker is the middleware "middleware.http.routerchecker": it
// refuses requests whose path and query do not match a regular expression.
//
// It is opened through [Component].
//
// It looks at the path as it was sent, with its escapes, which is the one that
// the request is dispatched on: nothing is decoded or cleaned in between.
package routerchecker

import (
	"context"
	"net/http"
	"regexp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("routerchecker", component.About{
	Summary: "Refuses requests whose path and query do not match a regular expression",
	Limits:  "Matching takes time in proportion to the length of the path: the expressions are RE2.",
	Scale:   "Every process does it by itself.",
	Dapr:    "Dapr cleans a path before it looks at it; here it is looked at as it was sent. A rule that is empty is an error; in Dapr it lets everything pass.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: paths
spec:
  type: middleware.http.routerchecker
  version: v1
  metadata:
    - name: rule
      value: "^/v1.0/(healthz|publish/orders/[a-z.]+)$"
`,
}, open)

type options struct {
	Rule string `meta:"rule,required" doc:"Regular expression that path and query must match. It may match a part of them: begin it with ^ and end it with $." example:"^[A-Za-z0-9/._-]+$"`
}

// Check implements component.Checker.
func (o options) Check() error {
	if _, err := regexp.Compile(o.Rule); err != nil {
		return component.OptionErrorf("rule", "is no regular expression: %w", err)
	}
	return nil
}

type driver struct{ rule *regexp.Regexp }

func open(_ context.Context, _ component.Env, o options) (middleware.Driver, error) {
	rule, err := regexp.Compile(o.Rule)
	if err != nil {
		return nil, err
	}
	return driver{rule}, nil
}

// Wrap implements middleware.Driver.
func (d driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target := middleware.Path(r.URL)
		if r.URL.ForceQuery || r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
		if !d.rule.MatchString(target) {
			middleware.Respond(w, http.StatusBadRequest, "invalid router")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Close implements middleware.Driver.
func (driver) Close(context.Context) error { return nil }
