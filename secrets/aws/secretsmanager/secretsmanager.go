// Package secretsmanager is the secret store that reads AWS Secrets Manager.
//
// Configure it as secretstores.aws.secretsmanager with a region; credentials are
// the usual ones of AWS unless given. A secret is read by its name or ARN.
// version_id and version_stage in the metadata of a request ask for a version.
//
// It promises that a scope which denies a secret's name denies its ARN, and that
// no value is in an error. Nothing is kept: every Get asks the service, once.
package secretsmanager

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// Component is listed in package all.
var Component = secrets.Define("aws.secretsmanager", component.About{
	Summary: "Secrets of AWS Secrets Manager",
	Limits:  "A request may take 20 s. A bulk request reads 10,000 secrets, 8 at a time.",
	Scale:   "Every process asks the service by itself.",
	Dapr: "A denied name in a scope counts for the secret's ARN as well. A secret that is bytes is given in base64. With multipleKeyValuesPerSecret " +
		"a secret that is no JSON object is an error.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: vault
spec:
  type: secretstores.aws.secretsmanager
  version: v1
  metadata:
    - name: region
      value: eu-central-1
`,
}, open)

type options struct {
	client.Options
	Multiple bool `meta:"multipleKeyValuesPerSecret" doc:"Whether a secret is a JSON object whose members are its pairs." default:"false"`
}

type store struct {
	multiple bool
	service  *client.JSONService
	calls    *client.Calls
	release  func() error
}

// The metadata of a request.
const (
	versionKey = "version_id"
	stageKey   = "version_stage"
)

// Bounds of requests.
const (
	timeout    = 20 * time.Second
	maxSecrets = 10_000
	readers    = 8
	page       = 100
)

func open(ctx context.Context, env component.Env, o options) (secrets.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	s := &store{
		multiple: o.Multiple, release: release, calls: client.NewCalls(ctx),
		service: client.NewJSONService(cfg, "secretsmanager", "secretsmanager"),
	}
	var list list
	err = s.call(ctx, "ListSecrets", map[string]any{"MaxResults": 1}, &list, "list secrets")
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

// Names implements [secrets.Namer]: the name in an ARN, with and without the six
// letters that the service adds.
func (s *store) Names(key string) []string {
	if !strings.HasPrefix(strings.ToLower(key), "arn:") {
		return nil
	}
	parts := strings.SplitN(key, ":", 7)
	name := parts[len(parts)-1]
	names := []string{name}
	if i := len(name) - 7; i > 0 && name[i] == '-' {
		names = append(names, name[:i])
	}
	return names
}

// Get returns one pair named key or, with multipleKeyValuesPerSecret, the members
// of the secret.
func (s *store) Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error) {
	if strings.TrimSpace(key) != key || key == "" {
		return nil, fault.New(fault.Invalid, "read secret %q: not the name of a secret", key)
	}
	in := map[string]string{"SecretId": key}
	if v := metadata[versionKey]; v != "" {
		in["VersionId"] = v
	}
	if v := metadata[stageKey]; v != "" {
		in["VersionStage"] = v
	}
	var out struct {
		SecretString *string
		SecretBinary string // base64
	}
	if err := s.call(ctx, "GetSecretValue", in, &out, "read secret"); err != nil {
		return nil, err
	}
	text := out.SecretBinary
	switch {
	case out.SecretString != nil:
		text = *out.SecretString
	case text == "":
		return nil, fault.New(fault.Unavailable, "read secret: the answer has no value")
	}
	if !s.multiple {
		return map[string]string{key: text}, nil
	}
	return members(text)
}

// members reads an object; values that are no text are JSON.
func members(text string) (map[string]string, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &values); err != nil || values == nil {
		return nil, fault.New(fault.Invalid, "read secret: it is no JSON object, which multipleKeyValuesPerSecret asks for")
	}
	out := make(map[string]string, len(values))
	for name, raw := range values {
		value := string(raw)
		if value == "null" {
			continue
		}
		if raw[0] == '"' {
			_ = json.Unmarshal(raw, &value) // it was read as JSON a moment ago
		}
		out[name] = value
	}
	return out, nil
}

// list is an answer to ListSecrets.
type list struct {
	SecretList []struct{ Name string }
	NextToken  string
}

// Bulk returns every secret of the region that the credentials may list. One
// that was deleted meanwhile is left out.
func (s *store) Bulk(ctx context.Context, _ map[string]string) (map[string]map[string]string, error) {
	names, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string]string, len(names))
	var mu sync.Mutex // guards all
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, name := range names {
		g.Go(func() error {
			pairs, err := s.Get(ctx, name, nil)
			if client.Missing(err) {
				return nil
			}
			if err != nil {
				return fault.Wrap(err, "read secret %q", name)
			}
			mu.Lock()
			defer mu.Unlock()
			all[name] = pairs
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return all, nil
}

func (s *store) list(ctx context.Context) ([]string, error) {
	var names []string
	in := map[string]any{"MaxResults": page}
	for {
		var out list
		if err := s.call(ctx, "ListSecrets", in, &out, "list secrets"); err != nil {
			return nil, err
		}
		for _, it := range out.SecretList {
			names = append(names, it.Name)
		}
		if len(names) > maxSecrets {
			return nil, fault.New(fault.Exhausted, "list secrets: there are more than %d", maxSecrets)
		}
		if out.NextToken == "" {
			return names, nil
		}
		in["NextToken"] = out.NextToken
	}
}
