// Package nameformat is the name resolution "nameresolution.nameformat": the
// address is a text with the app's id in it.
//
// It is set as spec.nameResolution of a Configuration, with a format such as
// "{appid}.internal:50002".
//
// It asks nobody, so it never fails and never knows whether there is such an
// app: a call to one that is not there ends with the error of reaching it. An id
// that cannot be a part of a host name is not found.
package nameformat

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/invoke/names"
)

// Component is listed in package all.
var Component = names.Define("nameformat", component.About{
	Summary: "Addresses made from the app's id by a format",
	Limits:  "One address for each app; the name server decides what stands behind it",
	Scale:   "Nothing is announced.",
	Dapr:    "A format without a port means port 50002, and {namespace} is known too.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: penstock
spec:
  nameResolution:
    component: nameformat
    configuration:
      format: "{appid}.internal:50002"
`,
}, open)

type options struct {
	Format string `meta:"format,required" doc:"The address with {appid}, and {namespace} if wanted, in it." example:"service-{appid}.default.svc.cluster.local"`
}

// Check implements component.Checker.
func (o options) Check() error {
	if !strings.Contains(o.Format, "{appid}") {
		return component.OptionErrorf("format", "has no {appid} in it, so all apps would be one")
	}
	if strings.ContainsAny(o.Format, "/ \t\n") {
		return component.OptionErrorf("format", "is a host and a port, without a scheme or a path")
	}
	return nil
}

type resolver struct{ format, namespace string }

func open(_ context.Context, env component.Env, o options) (names.Driver, error) {
	return &resolver{format: withPort(o.Format), namespace: env.Namespace}, nil
}

// withPort adds the usual port to a format that has none.
func withPort(format string) string {
	if _, port, err := net.SplitHostPort(format); err == nil && port != "" {
		return format
	}
	return net.JoinHostPort(strings.Trim(format, "[]"), strconv.Itoa(names.InternalPort))
}

// Resolve implements names.Driver.
func (r *resolver) Resolve(_ context.Context, app names.App) ([]string, error) {
	if app.Namespace == "" {
		app.Namespace = r.namespace
	}
	words := []string{app.ID}
	if strings.Contains(r.format, "{namespace}") {
		words = append(words, app.Namespace)
	}
	for _, word := range words {
		if err := names.CheckHost(word); err != nil {
			return nil, err
		}
	}
	return []string{strings.NewReplacer("{appid}", app.ID, "{namespace}", app.Namespace).Replace(r.format)}, nil
}

// Close implements names.Driver.
func (r *resolver) Close(context.Context) error { return nil }
