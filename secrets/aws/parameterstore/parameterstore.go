// Package parameterstore is the secret store that reads the Parameter Store of
// AWS Systems Manager.
//
// Configure it as secretstores.aws.parameterstore with a region; credentials are
// the usual ones of AWS unless given. A secret is the decrypted value of the
// parameter of that name, behind the prefix if there is one. version_id in the
// metadata of a request asks for a version.
//
// It promises that a key is the name of one parameter and nothing else (no ARN,
// no version, no label), and that no value is in an error. Nothing is kept: every
// Get asks the service, once.
package parameterstore

import (
	"context"
	"strconv"
	"strings"
	"time"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// Component is listed in package all.
var Component = secrets.Define("aws.parameterstore", component.About{
	Summary: "Secrets of the Parameter Store of AWS Systems Manager",
	Limits:  "A request may take 20 s. A bulk request reads 10,000 parameters, ten in a request.",
	Scale:   "Every process asks the service by itself.",
	Dapr:    "A key with a version, a label or an ARN in it is refused, since it would get around a scope; use version_id.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: vault
spec:
  type: secretstores.aws.parameterstore
  version: v1
  metadata:
    - name: region
      value: eu-central-1
    - name: prefix
      value: /orders/
`,
}, open)

type options struct {
	client.Options
	Prefix string `meta:"prefix" doc:"Put before each key; bulk gives only parameters whose names begin with it, without it." example:"/orders/"`
}

// Check implements component.Checker.
func (o options) Check() error {
	if o.Prefix != "" && !isName(o.Prefix+"x") {
		return component.OptionErrorf("prefix", "%q does not begin names of parameters", o.Prefix)
	}
	return o.Options.Check()
}

type store struct {
	prefix  string
	service *client.JSONService
	calls   *client.Calls
	release func() error
}

// versionKey is the request's metadata that asks for a version.
const versionKey = "version_id"

// Bounds of requests.
const (
	timeout    = 20 * time.Second
	maxSecrets = 10_000
	page       = 50
	batch      = 10
)

func open(ctx context.Context, env component.Env, o options) (secrets.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	s := &store{prefix: o.Prefix, release: release, calls: client.NewCalls(ctx), service: client.NewJSONService(cfg, "ssm", "AmazonSSM")}
	err = s.call(ctx, "DescribeParameters", map[string]any{"MaxResults": 1}, &struct{}{}, "list parameters")
	if err := client.Reached(err); err != nil {
		_ = release() // the reason is what counts
		return nil, err
	}
	return s, nil
}

// Close waits for requests under way until ctx ends.
func (s *store) Close(ctx context.Context) error {
	s.calls.Close(ctx)
	return s.release()
}

func (s *store) call(ctx context.Context, operation string, in, out any, words string) error {
	ctx, done, err := s.calls.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return s.service.Call(ctx, operation, in, out, words)
}

// Names implements [secrets.Namer]: at the root of the hierarchy a name means
// the same with a slash before it.
func (s *store) Names(key string) []string {
	if bare, ok := strings.CutPrefix(key, "/"); ok {
		return []string{bare}
	}
	return []string{"/" + key}
}

// isName tells whether a text is the name of a parameter.
func isName(text string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/"
	return text != "" && len(text) <= 1011 && strings.Trim(text, letters) == "" && !strings.Contains(text, "//") && !strings.HasSuffix(text, "/")
}

// parameter is one in an answer.
type parameter struct{ Name, Value string }

// Get returns one pair named key.
func (s *store) Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error) {
	name := s.prefix + key
	if key == "" || !isName(name) {
		return nil, fault.New(fault.Invalid, "read secret %q: not the name of a parameter: letters, digits, _ . - and single slashes are allowed", key)
	}
	if version := metadata[versionKey]; version != "" {
		n, err := strconv.ParseUint(version, 10, 63)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read metadata %s: %q is not the number of a version", versionKey, version)
		}
		name += ":" + strconv.FormatUint(n, 10)
	}
	var out struct{ Parameter parameter }
	if err := s.call(ctx, "GetParameter", map[string]any{"Name": name, "WithDecryption": true}, &out, "read parameter"); err != nil {
		return nil, err
	}
	return map[string]string{key: out.Parameter.Value}, nil
}

// Bulk returns every parameter whose name begins with the prefix. One that was
// deleted meanwhile is left out.
func (s *store) Bulk(ctx context.Context, _ map[string]string) (map[string]map[string]string, error) {
	names, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string]string, len(names))
	for from := 0; from < len(names); from += batch {
		some := names[from:min(from+batch, len(names))]
		var out struct{ Parameters []parameter }
		if err := s.call(ctx, "GetParameters", map[string]any{"Names": some, "WithDecryption": true}, &out, "read parameters"); err != nil {
			return nil, err
		}
		for _, p := range out.Parameters {
			key := strings.TrimPrefix(p.Name, s.prefix)
			all[key] = map[string]string{key: p.Value}
		}
	}
	return all, nil
}

func (s *store) list(ctx context.Context) ([]string, error) {
	var names []string
	in := map[string]any{"MaxResults": page}
	if s.prefix != "" {
		in["ParameterFilters"] = []any{map[string]any{"Key": "Name", "Option": "BeginsWith", "Values": []string{s.prefix}}}
	}
	for {
		var out struct {
			Parameters []parameter
			NextToken  string
		}
		if err := s.call(ctx, "DescribeParameters", in, &out, "list parameters"); err != nil {
			return nil, err
		}
		for _, p := range out.Parameters {
			if strings.HasPrefix(p.Name, s.prefix) && p.Name != s.prefix {
				names = append(names, p.Name)
			}
		}
		if len(names) > maxSecrets {
			return nil, fault.New(fault.Exhausted, "list parameters: there are more than %d", maxSecrets)
		}
		if out.NextToken == "" {
			return names, nil
		}
		in["NextToken"] = out.NextToken
	}
}
