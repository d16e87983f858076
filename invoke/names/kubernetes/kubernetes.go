// Package kubernetes is the name resolution "nameresolution.kubernetes": the
// name that Dapr's operator gives the service of an app's sidecars.
//
// It is set as spec.nameResolution of a Configuration. The address of the app
// "shop" in the namespace "prod" is shop-dapr.prod.svc.cluster.local:50002, or
// what a template of one's own makes of it.
//
// It asks the name server for every instance that stands behind the name, so
// that calls are spread and one that is away is left alone; a name that means
// none is not found. It needs no rights in the cluster.
package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"text/template"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// Component is listed in package all.
var Component = names.Define("kubernetes", component.About{
	Summary: "The service names that Dapr's operator gives sidecars in a cluster",
	Limits:  "A service must be headless, as Dapr's are, for calls to be spread over its pods",
	Scale:   "Nothing is announced: the operator makes the services.",
	Dapr:    "All addresses behind the name are used.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: penstock
spec:
  nameResolution:
    component: kubernetes
    configuration:
      clusterDomain: cluster.local
`,
}, open)

type options struct {
	ClusterDomain string `meta:"clusterDomain" default:"cluster.local" doc:"Domain of the cluster."`
	Template      string `meta:"template" doc:"Go template of the address, with .ID, .Namespace and .Port." example:"{{.ID}}-dapr.{{.Namespace}}.svc.example.com:{{.Port}}"`
}

// request is what a template may name.
type request struct {
	ID, Namespace string
	Port          int
	Data          map[string]string // Dapr has it, always empty
}

// Check implements component.Checker.
func (o options) Check() error {
	if err := names.CheckHost(o.ClusterDomain); err != nil {
		return component.OptionErrorf("clusterDomain", "%v", err)
	}
	_, err := o.address(request{ID: "id", Namespace: "namespace", Port: names.InternalPort})
	return err
}

// address makes the address of an app.
func (o options) address(r request) (string, error) {
	if o.Template == "" {
		return r.ID + "-dapr." + r.Namespace + ".svc." + o.ClusterDomain + ":" + strconv.Itoa(r.Port), nil
	}
	t, err := template.New("template").Parse(o.Template)
	if err != nil {
		return "", component.OptionErrorf("template", "%v", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, r); err != nil {
		return "", component.OptionErrorf("template", "%v", err)
	}
	if _, _, err := net.SplitHostPort(b.String()); err != nil {
		return "", component.OptionErrorf("template", "makes %q, which is no host and port", b.String())
	}
	return b.String(), nil
}

// lookup finds the addresses behind a name.
type lookup func(ctx context.Context, host string) ([]string, error)

type resolver struct {
	o         options
	namespace string
	lookup    lookup
}

func open(_ context.Context, env component.Env, o options) (names.Driver, error) {
	return newResolver(o, env.Namespace, net.DefaultResolver.LookupHost), nil
}

func newResolver(o options, namespace string, find lookup) *resolver {
	return &resolver{o: o, namespace: cmp.Or(namespace, "default"), lookup: find}
}

// Resolve implements names.Driver.
func (r *resolver) Resolve(ctx context.Context, app names.App) ([]string, error) {
	q := request{ID: app.ID, Namespace: cmp.Or(app.Namespace, r.namespace), Port: names.InternalPort}
	for _, word := range []string{q.ID, q.Namespace} {
		if err := names.CheckHost(word); err != nil {
			return nil, err
		}
	}
	address, err := r.o.address(q)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fault.New(fault.Invalid, "split address %q: %w", address, err)
	}
	found, err := r.lookup(ctx, host)
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return nil, fault.New(fault.NotFound, "no service is called %s", host)
	}
	if err != nil {
		return nil, fault.Wrap(err, "look up %s", host)
	}
	for i, a := range found {
		found[i] = net.JoinHostPort(a, port)
	}
	return found, nil
}

// Close implements names.Driver.
func (r *resolver) Close(context.Context) error { return nil }
