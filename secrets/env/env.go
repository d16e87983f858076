// Package env is the secret store that reads the environment of this process.
//
// Configure it as secretstores.local.env, with a prefix to give out only the
// variables that begin with it.
//
// It promises never to give out what would let an app pretend to be the
// sidecar or the other way round: APP_API_TOKEN and every variable whose name
// begins with DAPR_ or PENSTOCK_. Values are read at each call, nothing is kept.
package env

import (
	"context"
	"os"
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// Component is listed in package all.
var Component = secrets.Define("local.env", component.About{
	Summary: "Secrets from the environment variables of this process",
	Limits:  "None beyond what the system allows for an environment.",
	Scale:   "Every process reads its own environment.",
	Dapr:    "A missing variable is an error instead of an empty value; variables that begin with PENSTOCK_ are refused too.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: environment
spec:
  type: secretstores.local.env
  version: v1
  metadata:
    - name: prefix
      value: MYAPP_
`,
}, open)

type options struct {
	Prefix string `meta:"prefix" doc:"Gives out only variables whose names begin with this; the prefix is left out of the secret's name." example:"MYAPP_"`
}

type store struct{ prefix string }

func open(_ context.Context, _ component.Env, o options) (secrets.Driver, error) {
	return &store{prefix: o.Prefix}, nil
}

// Get returns the variable named prefix+key. A variable that is set and empty
// is an empty secret.
func (s *store) Get(_ context.Context, key string, _ map[string]string) (map[string]string, error) {
	if key == "" || strings.ContainsAny(key, "=\x00") {
		return nil, fault.New(fault.Invalid, "read secret %q: not a name of an environment variable", key)
	}
	name := s.prefix + key
	if !allowed(name) {
		return nil, fault.New(fault.Denied, "read secret %q: environment variable %s is not given out", key, name)
	}
	value, ok := os.LookupEnv(name)
	if !ok {
		return nil, fault.New(fault.NotFound, "read secret %q: environment variable %s is not set", key, name)
	}
	return map[string]string{key: value}, nil
}

// Bulk returns every variable that begins with the prefix, those that are not
// given out excepted.
func (s *store) Bulk(context.Context, map[string]string) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, pair := range os.Environ() {
		name, value, ok := strings.Cut(pair, "=")
		key, has := strings.CutPrefix(name, s.prefix)
		if !ok || !has || key == "" || !allowed(name) {
			continue
		}
		all[key] = map[string]string{key: value}
	}
	return all, nil
}

// Close has nothing to free.
func (s *store) Close(context.Context) error { return nil }

// allowed compares without regard to case because some systems look variables
// up that way.
func allowed(name string) bool {
	upper := strings.ToUpper(name)
	return upper != "APP_API_TOKEN" && !strings.HasPrefix(upper, "DAPR_") && !strings.HasPrefix(upper, "PENSTOCK_")
}
