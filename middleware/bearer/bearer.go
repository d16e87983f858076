// Package bearer is the middleware "middleware.http.bearer": it lets requests
// with a JSON Web Token of a trusted issuer pass.
//
// It is opened through [Component].
//
// A token counts when it is signed with a key of the issuer's key set that it
// names, by an asymmetric algorithm that suits the key, and when its issuer,
// audience and times are right, give or take five minutes. Keys are fetched when
// it opens, every hour, and, at most every ten seconds, for a token that names a
// key nobody knows. As long as the key server is down, the keys that are there
// go on to count.
package bearer

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("bearer", component.About{
	Summary: "Lets requests with a JSON Web Token of a trusted issuer pass",
	Limits:  "A token may have 16 KiB, a key set or OpenID document 1 MiB and 10 s. Keys that are unknown are asked for every ten seconds at most, by one request at a time.",
	Scale:   "Every process fetches the keys by itself.",
	Dapr:    "A token must be signed with an asymmetric key. Keys that a token names and that are not known are fetched at once; Dapr waits for its next refresh. Redirects are not followed. Without the key server at the start, requests are answered with 503 until it is there.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: auth
spec:
  type: middleware.http.bearer
  version: v1
  metadata:
    - name: issuer
      value: https://login.example.com
    - name: audience
      value: shop
`,
}, open)

type options struct {
	Issuer   string `meta:"issuer,required" alias:"issuerURL" doc:"Who must have issued a token, to the letter." example:"https://login.example.com"`
	Audience string `meta:"audience,required" alias:"clientID" doc:"For whom a token must be." example:"shop"`
	JWKSURL  string `meta:"jwksURL" doc:"Where the issuer's keys are; found in its OpenID document when empty." example:"https://login.example.com/keys.json"`
}

// Check implements component.Checker.
func (o options) Check() error {
	if o.JWKSURL != "" {
		return checkURL("jwksURL", o.JWKSURL)
	}
	return checkURL("issuer", o.Issuer)
}

func checkURL(option, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return component.OptionErrorf(option, "is not a URL with http or https that keys could be fetched from")
	}
	return nil
}

const (
	skew     = 5 * time.Minute
	maxToken = 16 << 10
	minToken = 10 // as in Dapr: anything shorter is none
)

// algorithms are those with a key pair. With others, whoever can check a token
// can make one, and a public key could be taken for a secret one.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

type driver struct {
	o    options
	keys *keySet
}

func open(ctx context.Context, env component.Env, o options) (middleware.Driver, error) {
	keys, err := openKeys(ctx, env.Logger, o)
	if err != nil {
		return nil, err
	}
	return &driver{o, keys}, nil
}

// Wrap implements middleware.Driver.
func (d *driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.allows(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			middleware.Respond(w, http.StatusUnauthorized, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Close implements middleware.Driver.
func (d *driver) Close(context.Context) error {
	d.keys.close()
	return nil
}

// allows tells whether a request has a token that counts. Why one does not is
// nobody's business but the issuer's.
func (d *driver) allows(r *http.Request) bool {
	given := r.Header["Authorization"]
	if len(given) != 1 {
		return false
	}
	const scheme = "bearer "
	text := given[0]
	if len(text) < len(scheme)+minToken || len(text) > len(scheme)+maxToken || !strings.EqualFold(text[:len(scheme)], scheme) {
		return false
	}
	token, err := jwt.ParseSigned(text[len(scheme):], algorithms())
	if err != nil || len(token.Headers) != 1 {
		return false
	}
	head := token.Headers[0]
	for _, k := range d.keys.find(r.Context(), head.KeyID) {
		if k.Algorithm != "" && k.Algorithm != head.Algorithm {
			continue
		}
		var c jwt.Claims
		if token.Claims(k.Key, &c) == nil {
			return d.valid(c)
		}
	}
	return false
}

// valid checks who issued a token, for whom, and its times.
func (d *driver) valid(c jwt.Claims) bool {
	expected := jwt.Expected{Issuer: d.o.Issuer, Time: time.Now()}
	return c.Issuer == d.o.Issuer && slices.Contains(c.Audience, d.o.Audience) && c.ValidateWithLeeway(expected, skew) == nil
}
