// Package oauth2clientcredentials is the middleware
// "middleware.http.oauth2clientcredentials": it adds a token to requests that it
// got from an OAuth 2.0 server with an id and a secret of its own.
//
// It is opened through [Component].
//
// There is one token for all requests. It is fetched with the first of them and
// again before it ends, by one request at a time, while the others go on with the
// one that is there. A request never waits longer than it lives.
package oauth2clientcredentials

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	client "github.com/penstock-io/penstock/client/oauth2"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("oauth2clientcredentials", component.About{
	Summary: "Adds a token to requests that it gets from an OAuth 2.0 server with an id and a secret",
	Limits:  "One token at a time, of at most 16 KiB. It is fetched in 10 s at most, a minute before it ends or when a tenth of its time is left, and every second at most as long as the server gives none; requests without a token are answered with 503 then.",
	Scale:   "Every process fetches a token of its own.",
	Dapr:    "A token that has ended is never sent. A request whose token cannot be fetched is answered with 503 and Retry-After instead of 500. The header is Authorization unless headerName says otherwise. Redirects of the token endpoint are not followed. pathFilter is also held against the decoded path.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: token
spec:
  type: middleware.http.oauth2clientcredentials
  version: v1
  metadata:
    - name: clientId
      value: shop
    - name: clientSecret
      secretKeyRef:
        name: shop-oauth
        key: secret
    - name: scopes
      value: orders.read orders.write
    - name: tokenURL
      value: https://login.example.com/token
    - name: headerName
      value: authorization
auth:
  secretStore: vault
`,
}, open)

type options struct {
	ClientID     string           `meta:"clientId,required" doc:"The id that the server knows the app by." example:"shop"`
	ClientSecret component.Secret `meta:"clientSecret,required" doc:"The secret that goes with the id."`
	Scopes       string           `meta:"scopes" doc:"What the token is asked for, separated by spaces or commas." example:"orders.read orders.write"`
	TokenURL     string           `meta:"tokenURL,required" doc:"Where the server gives tokens." example:"https://login.example.com/token"`
	HeaderName   string           `meta:"headerName" doc:"Header that the token is put into; one that is there is replaced." default:"Authorization"`
	Params       string           `meta:"endpointParamsQuery" doc:"Further parameters for the server, as in a query." example:"audience=orders&resource=https://orders.example.com"`
	AuthStyle    int              `meta:"authStyle" doc:"How id and secret are sent: 1 in the body, 2 as Basic authentication, 0 as the server takes them." default:"0"`
	PathFilter   string           `meta:"pathFilter" doc:"Regular expression; requests with a path that it does not match pass without a token." example:".*/orders/.*"`
}

// Check implements component.Checker.
func (o options) Check() error {
	_, filter := middleware.NewFilter("pathFilter", o.PathFilter)
	_, params := o.params()
	var style error
	if o.AuthStyle < 0 || o.AuthStyle > 2 {
		style = component.OptionErrorf("authStyle", "is 0, 1 or 2")
	}
	return errors.Join(client.CheckURL("tokenURL", o.TokenURL), middleware.CheckHeader("headerName", o.HeaderName), params, style, filter)
}

// params reads endpointParamsQuery.
func (o options) params() (url.Values, error) {
	values, err := url.ParseQuery(o.Params)
	if err != nil {
		return nil, component.OptionErrorf("endpointParamsQuery", "cannot be read as a query, such as audience=orders")
	}
	for _, own := range []string{"scope", "client_id", "client_secret"} {
		if values.Has(own) {
			return nil, component.OptionErrorf("endpointParamsQuery", "has %s, which is an option of its own", own)
		}
	}
	return values, nil
}

type driver struct {
	header string
	filter middleware.Filter
	client *client.Client
	token  *token
}

func open(ctx context.Context, env component.Env, o options) (middleware.Driver, error) {
	filter, err := middleware.NewFilter("pathFilter", o.PathFilter)
	if err != nil {
		return nil, err
	}
	params, err := o.params()
	if err != nil {
		return nil, err
	}
	conf := &clientcredentials.Config{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(), TokenURL: o.TokenURL,
		Scopes: client.Scopes(o.Scopes), EndpointParams: params, AuthStyle: oauth2.AuthStyle(o.AuthStyle),
	}
	c := client.NewClient(env.Logger)
	fetch := func(ctx context.Context) (client.Grant, error) { return c.Fetch(ctx, conf.Token) }
	return &driver{header: http.CanonicalHeaderKey(o.HeaderName), filter: filter, client: c, token: newToken(ctx, fetch)}, nil
}

// Wrap implements middleware.Driver.
func (d *driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.filter.Matches(r.URL) {
			next.ServeHTTP(w, r)
			return
		}
		value, err := d.token.get(r.Context())
		if err != nil {
			w.Header().Set("Retry-After", "1")
			middleware.Respond(w, http.StatusServiceUnavailable, "no token for the request")
			return
		}
		out := r.WithContext(r.Context())
		out.Header = r.Header.Clone()
		out.Header[d.header] = []string{value}
		next.ServeHTTP(w, out)
	})
}

// Close implements middleware.Driver.
func (d *driver) Close(context.Context) error {
	d.token.close()
	d.client.Close()
	return nil
}
