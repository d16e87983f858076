// Package oauth2 is the middleware "middleware.http.oauth2": it sends browsers to
// an OAuth 2.0 server to log in, and hands their requests on with the token that
// they came back with.
//
// It is opened through [Component].
//
// Nothing is kept here: the token travels in the browser's cookies, sealed, so
// that only a middleware with the same cookieKey can read or make them. A login
// counts in the browser that began it and for ten minutes, its code is worthless
// without a proof that never leaves this process but to the server (PKCE), and it
// ends on the path that was asked for, on the same host.
package oauth2

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	client "github.com/penstock-io/penstock/client/oauth2"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("oauth2", component.About{
	Summary: "Sends browsers to an OAuth 2.0 server to log in, and adds their token to requests",
	Limits:  "A token with its type may have 8,000 bytes; it needs as many cookies of 4 KB as it takes, and --dapr-http-read-buffer-size must leave room for them. A session ends with its token and after 24 h at the latest; it is not renewed, a new login is. A login may take ten minutes, the server 10 s to give the token.",
	Scale:   "Processes with the same cookieKey share sessions and logins. Without one, each has a key of its own until it ends.",
	Dapr:    "The session is in sealed cookies; Dapr keeps it in memory. The login uses PKCE. The token is added to the request and not told to the browser. logoutPath is ours; it and the return of a login are recognised before pathFilter, which is also held against the decoded path. Without a session, a method other than GET and HEAD is answered with 401, since its body could not come back from a login. A code that does not count is answered with 400, and a server that gives no token with 503; Dapr says 500. Scopes may be separated by spaces too.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: login
spec:
  type: middleware.http.oauth2
  version: v1
  metadata:
    - name: clientId
      value: shop
    - name: clientSecret
      secretKeyRef:
        name: shop-oauth
        key: secret
    - name: cookieKey
      secretKeyRef:
        name: shop-oauth
        key: cookies
    - name: scopes
      value: openid email
    - name: authURL
      value: https://login.example.com/authorize
    - name: tokenURL
      value: https://login.example.com/token
    - name: redirectURL
      value: https://shop.example.com/v1.0/invoke/shop/method/login
    - name: authHeaderName
      value: authorization
    - name: pathFilter
      value: ^/v1.0/invoke/shop/method/
auth:
  secretStore: vault
`,
}, open)

type options struct {
	ClientID     string           `meta:"clientId,required" doc:"The id that the server knows the app by." example:"shop"`
	ClientSecret component.Secret `meta:"clientSecret,required" doc:"The secret that goes with the id."`
	Scopes       string           `meta:"scopes" doc:"What the token is asked for, separated by spaces or commas." example:"openid email"`
	AuthURL      string           `meta:"authURL,required" doc:"Where browsers are sent to log in." example:"https://login.example.com/authorize"`
	TokenURL     string           `meta:"tokenURL,required" doc:"Where the server gives tokens." example:"https://login.example.com/token"`
	RedirectURL  string           `meta:"redirectURL" doc:"Where the server sends browsers after a login: any path that passes this middleware. The server must know it; one that knows a single one need not be told." example:"https://shop.example.com/login"`
	HeaderName   string           `meta:"authHeaderName" doc:"Header that the token is put into; one that is there is replaced." default:"Authorization"`
	ForceHTTPS   bool             `meta:"forceHTTPS" doc:"Make the redirectURL one with https, and send cookies over TLS only. Cookies are, without it too, when the redirectURL has https."`
	PathFilter   string           `meta:"pathFilter" doc:"Regular expression; requests with a path that it does not match pass without a login." example:".*/users/.*"`
	LogoutPath   string           `meta:"logoutPath" doc:"Path of a POST that ends the session: its cookies are taken back, and it is answered with 204. The server, and other sites of it, are not told." example:"/logout"`
	CookieName   string           `meta:"cookieName" doc:"Name of the cookies, followed by _login and by _1, _2. It begins with __Host- as well when they are sent over TLS only." default:"penstock_oauth2"`
	CookieKey    component.Secret `meta:"cookieKey" alias:"tokenEncryptionKey" doc:"What cookies are sealed with, at least 16 characters of chance, the same in all processes. Without one, sessions end with the process."`
}

// Check implements component.Checker.
func (o options) Check() error {
	_, filter := middleware.NewFilter("pathFilter", o.PathFilter)
	var redirect, key, name, logout error
	if o.RedirectURL != "" {
		redirect = client.CheckURL("redirectURL", o.RedirectURL)
	}
	if !o.CookieKey.IsZero() && len(o.CookieKey.Reveal()) < minKey {
		key = component.OptionErrorf("cookieKey", "is shorter than %d characters; make one with: openssl rand -base64 24", minKey)
	}
	if o.CookieName == "" || len(o.CookieName) > 64 || strings.Trim(o.CookieName, cookieLetters) != "" {
		name = component.OptionErrorf("cookieName", "must be 1 to 64 letters, digits, - and _")
	}
	if u, err := url.ParseRequestURI(o.LogoutPath); o.LogoutPath != "" && (err != nil || u.EscapedPath() != o.LogoutPath || !strings.HasPrefix(o.LogoutPath, "/")) {
		logout = component.OptionErrorf("logoutPath", "is no path that begins with / and has no query")
	}
	return errors.Join(client.CheckURL("authURL", o.AuthURL), client.CheckURL("tokenURL", o.TokenURL), redirect,
		middleware.CheckHeader("authHeaderName", o.HeaderName), name, key, logout, filter)
}

const (
	minKey        = 16
	cookieLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

	loginTime   = 10 * time.Minute
	sessionTime = 24 * time.Hour
	// maxReturn is the longest path with its query that a login returns to; the
	// servers' own limits on the state are not much higher.
	maxReturn = 1024
)

type driver struct {
	conf   *oauth2.Config
	header string
	filter middleware.Filter
	logout string // path; empty: there is none
	client *client.Client
	jar    *jar
}

func open(_ context.Context, env component.Env, o options) (middleware.Driver, error) {
	filter, err := middleware.NewFilter("pathFilter", o.PathFilter)
	if err != nil {
		return nil, err
	}
	redirect := o.RedirectURL
	if rest, found := strings.CutPrefix(redirect, "http://"); found && o.ForceHTTPS {
		redirect = "https://" + rest
	}
	key := o.CookieKey.Reveal()
	if key == "" {
		key = rand.Text()
	}
	secure := o.ForceHTTPS || strings.HasPrefix(redirect, "https://")
	jar, err := newJar(key, o.CookieName, secure, o.ClientID+"\x00"+o.TokenURL+"\x00"+o.HeaderName)
	if err != nil {
		return nil, err
	}
	return &driver{
		conf: &oauth2.Config{
			ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(), Scopes: client.Scopes(o.Scopes), RedirectURL: redirect,
			Endpoint: oauth2.Endpoint{AuthURL: o.AuthURL, TokenURL: o.TokenURL},
		},
		header: http.CanonicalHeaderKey(o.HeaderName), filter: filter, logout: o.LogoutPath, client: client.NewClient(env.Logger), jar: jar,
	}, nil
}

// Wrap implements middleware.Driver.
func (d *driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		back, query := returns(r)
		if back {
			if l, ok := d.jar.login(r, query.Get("state")); ok {
				d.finish(w, r, query, l)
				return
			}
		}
		if d.logout != "" && r.Method == http.MethodPost && middleware.Path(r.URL) == d.logout {
			d.end(w, r)
			return
		}
		if !d.filter.Matches(r.URL) {
			next.ServeHTTP(w, r)
			return
		}
		switch header, ok := d.jar.session(r); {
		case ok:
			next.ServeHTTP(w, d.passed(r, header))
		case back:
			middleware.Respond(w, http.StatusBadRequest, "invalid state")
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
			d.begin(w, r)
		default:
			middleware.Respond(w, http.StatusUnauthorized, "")
		}
	})
}

// Close implements middleware.Driver.
func (d *driver) Close(context.Context) error {
	d.client.Close()
	return nil
}

// returns tells whether a request looks like the return from a login.
func returns(r *http.Request) (bool, url.Values) {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.RawQuery, "state=") {
		return false, nil
	}
	q := r.URL.Query()
	return q.Get("state") != "" && (q.Get("code") != "" || q.Get("error") != ""), q
}

// begin sends a browser to log in.
func (d *driver) begin(w http.ResponseWriter, r *http.Request) {
	l, err := d.jar.begin(w, r, target(r))
	if err != nil {
		middleware.Respond(w, http.StatusInternalServerError, "")
		return
	}
	redirect(w, d.conf.AuthCodeURL(l.state, oauth2.AccessTypeOffline, oauth2.S256ChallengeOption(l.proof)))
}

// finish takes the code of a login for a token, and returns to the path that the
// login began with.
func (d *driver) finish(w http.ResponseWriter, r *http.Request, query url.Values, l login) {
	code := query.Get("code")
	if code == "" { // what the error is was told to the user by the server
		middleware.Respond(w, http.StatusForbidden, "the login was refused")
		return
	}
	grant, err := d.client.Fetch(r.Context(), func(ctx context.Context) (*oauth2.Token, error) {
		return d.conf.Exchange(ctx, code, oauth2.VerifierOption(l.proof))
	})
	if err == nil {
		err = d.jar.keep(w, grant)
	}
	switch {
	case err == nil:
		redirect(w, l.target)
	case fault.KindOf(err) == fault.Denied:
		middleware.Respond(w, http.StatusBadRequest, "the code does not count")
	default:
		w.Header().Set("Retry-After", "1")
		middleware.Respond(w, http.StatusServiceUnavailable, "no token for the login")
	}
}

// end ends a session. A form of another site comes without the cookies, and ends
// nothing.
func (d *driver) end(w http.ResponseWriter, r *http.Request) {
	if _, ok := d.jar.session(r); ok {
		d.jar.drop(w)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// passed is the request with the token, and without our cookies.
func (d *driver) passed(r *http.Request, header string) *http.Request {
	out := r.WithContext(r.Context())
	out.Header = r.Header.Clone()
	out.Header[d.header] = []string{header}
	d.jar.strip(out.Header)
	return out
}

// target is where a login that begins with a request returns to: its path and
// query, or less when they are too long. A path of two slashes would be another
// host.
func target(r *http.Request) string {
	path := middleware.Path(r.URL)
	if len(path) > maxReturn || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return "/"
	}
	query := r.URL.RawQuery
	if query == "" || len(path)+1+len(query) > maxReturn || !printable(query) {
		return path
	}
	return path + "?" + query
}

func printable(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

func redirect(w http.ResponseWriter, to string) {
	h := w.Header()
	h.Set("Location", to)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusFound)
}
