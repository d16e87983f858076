// Package jwks is the crypto component whose keys are those of a JSON Web Key
// Set.
//
// Configure it as crypto.dapr.jwks with the set itself, in JSON or that in
// base64, with the path of a file, or with a URL. The name of a key is its kid.
//
// It promises that a changed file is read again before the next document, that
// a URL is asked again after minRefreshInterval, and that keys which cannot be
// read anew stay as they were. A set may have 1 MiB.
package jwks

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/crypto/keys"
)

// Component is listed in package all.
var Component = crypto.Define("dapr.jwks", component.About{
	Summary: "Keys from a JSON Web Key Set",
	Limits:  "A set may have 1 MiB.",
	Scale:   "Every process reads the set by itself.",
	Dapr:    "A key that cannot be read does not keep the others of its set from being used. A URL is asked at the interval, whatever its answer says about caching, and never at a link-local or cloud-metadata address. The algorithms A128CBC-NOPAD, A192CBC-NOPAD and A256CBC-NOPAD work; Dapr lists them and refuses them with keys of this kind, so what they wrapped is for Penstock only.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: keys
spec:
  type: crypto.dapr.jwks
  version: v1
  metadata:
    - name: jwks
      value: https://example.com/.well-known/jwks.json
    - name: minRefreshInterval
      value: 10m
`,
}, open)

type options struct {
	JWKS            component.Secret `meta:"jwks,required" doc:"The key set: JSON, JSON in base64, a URL with http or https, or the path of a file." example:"./keys.json"`
	RequestTimeout  time.Duration    `meta:"requestTimeout" doc:"How long one request to the URL may take; less than 1ms is the default." default:"30s"`
	RefreshInterval time.Duration    `meta:"minRefreshInterval" doc:"How often the URL is asked; less than 1s is the default." default:"10m"`
}

// Dapr's defaults, which also stand for values that make no sense.
const (
	defaultTimeout = 30 * time.Second
	defaultRefresh = 10 * time.Minute
)

const maxSize = 1 << 20

// source is where the set comes from.
type source interface {
	// current returns the set as it is now.
	current() keys.Set
	close()
}

// fixed is a set that stands in the configuration.
type fixed struct{ set keys.Set }

func (f fixed) current() keys.Set { return f.set }
func (f fixed) close()            {}

type provider struct{ source source }

func open(ctx context.Context, env component.Env, o options) (crypto.Driver, error) {
	if o.RequestTimeout < time.Millisecond {
		o.RequestTimeout = defaultTimeout
	}
	if o.RefreshInterval < time.Second {
		o.RefreshInterval = defaultRefresh
	}
	s, err := openSource(ctx, env, o)
	if err != nil {
		return nil, err
	}
	return &provider{s}, nil
}

// openSource finds out what the option is.
func openSource(ctx context.Context, env component.Env, o options) (source, error) {
	text := strings.TrimSpace(o.JWKS.Reveal())
	if lower := strings.ToLower(text); strings.HasPrefix(lower, "http://") || strings.HasPrefix(lower, "https://") {
		return openWeb(ctx, env.Logger, text, o)
	}
	if decoded, err := base64.StdEncoding.DecodeString(text); err == nil && isObject(string(decoded)) {
		text = string(decoded)
	}
	if !isObject(text) {
		return openFile(env.Logger, text)
	}
	set, err := keys.ParseSet([]byte(text))
	return fixed{set}, err
}

func isObject(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), "{") }

// WrapKey wraps a file key with a key of the set.
func (p *provider) WrapKey(_ context.Context, name string, a enc.Algorithm, fileKey []byte) ([]byte, error) {
	k, err := p.source.current().Find(name)
	if err != nil {
		return nil, err
	}
	return k.Wrap(a, fileKey)
}

// UnwrapKey unwraps a file key with a key of the set.
func (p *provider) UnwrapKey(_ context.Context, name string, a enc.Algorithm, wrapped []byte) ([]byte, error) {
	k, err := p.source.current().Find(name)
	if err != nil {
		return nil, err
	}
	return k.Unwrap(a, wrapped)
}

// Close ends the asking.
func (p *provider) Close(context.Context) error {
	p.source.close()
	return nil
}
