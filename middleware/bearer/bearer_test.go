package bearer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
)

// issuer is an OpenID provider.
type issuer struct {
	url  string
	rsa  *rsa.PrivateKey
	ec   *ecdsa.PrivateKey
	asks atomic.Int64 // for keys

	mu   sync.Mutex
	keys []jose.JSONWebKey
	odd  http.HandlerFunc // answers for keys when it is set
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	i.keys = []jose.JSONWebKey{
		{Key: &i.rsa.PublicKey, KeyID: "rsa"},
		{Key: &i.ec.PublicKey, KeyID: "ec", Algorithm: "ES256", Use: "sig"},
		{Key: []byte("a secret that stands in a key set"), KeyID: "oct"},
		{Key: &i.rsa.PublicKey, KeyID: "enc", Use: "enc"},
	}
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	i.url = s.URL
	return i
}

// ServeHTTP implements [http.Handler].
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	keys, odd := i.keys, i.odd
	i.mu.Unlock()
	switch {
	case r.URL.Path == "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	case r.URL.Path == "/other/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	case r.URL.Path == "/keys":
		i.asks.Add(1)
		if odd != nil {
			odd(w, r)
			return
		}
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: keys})
	default:
		http.NotFound(w, r)
	}
}

func (i *issuer) set(odd http.HandlerFunc, keys ...jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.odd = odd
	if keys != nil {
		i.keys = keys
	}
}

// claims are good ones.
func (i *issuer) claims() map[string]any {
	now := time.Now()
	return map[string]any{"iss": i.url, "aud": "shop", "exp": now.Add(time.Hour).Unix(), "nbf": now.Unix(), "iat": now.Unix()}
}

// sign makes a token, with claims other than the good ones.
func (i *issuer) sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, other map[string]any) string {
	t.Helper()
	o := &jose.SignerOptions{}
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	c := i.claims()
	for k, v := range other {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	text, err := jwt.Signed(s).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *issuer) options() map[string]string {
	return map[string]string{"issuer": i.url, "audience": "shop"}
}

func opened(t *testing.T, options map[string]string) (middleware.Driver, error) {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	d, err := Component.Open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(middleware.Driver), nil
}

// ask sends a request with Authorization headers and returns the status.
func ask(t *testing.T, d middleware.Driver, authorization ...string) int {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1.0/metadata", nil)
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	d.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })).ServeHTTP(w, r)
	return w.Code
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	i := newIssuer(t)
	request := func(token string) *http.Request {
		r := httptest.NewRequest("POST", "/v1.0/publish/bus/t", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		return r
	}
	conform.Middleware(t, Component, conform.MiddlewareSetup{
		Options: func(*testing.T) map[string]string { return i.options() },
		Wrong:   map[string]map[string]string{"issuer": {"issuer": "login"}, "jwksURL": {"jwksURL": "file:///etc/passwd"}},
		Pass: func(t *testing.T, _ map[string]string) *http.Request {
			return request(i.sign(t, jose.RS256, i.rsa, "rsa", nil))
		},
		Stop: map[string]conform.StoppedRequest{
			"no token": {Request: func(*testing.T, map[string]string) *http.Request { return httptest.NewRequest("GET", "/", nil) }, Status: 401},
			"audience": {Request: func(t *testing.T, _ map[string]string) *http.Request {
				return request(i.sign(t, jose.RS256, i.rsa, "rsa", map[string]any{"aud": "other"}))
			}, Status: 401},
		},
	})
}

// rows are tokens, and whether they count.
type rows map[string]struct {
	token string
	pass  bool
}

// check asks with each token; forge makes them.
func (i *issuer) check(t *testing.T, forge func(good string) rows) {
	t.Helper()
	d, err := opened(t, i.options())
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range forge(i.sign(t, jose.RS256, i.rsa, "rsa", nil)) {
		if code := ask(t, d, "Bearer "+row.token); (code == 204) != row.pass || code != 204 && code != 401 {
			t.Errorf("%s: answer %d, want it to pass: %v", name, code, row.pass)
		}
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	i, now := newIssuer(t), time.Now()
	ec := func(other map[string]any) string { return i.sign(t, jose.ES256, i.ec, "ec", other) }
	i.check(t, func(good string) rows {
		return rows{
			"rsa": {good, true}, "pss": {i.sign(t, jose.PS512, i.rsa, "rsa", nil), true}, "ec": {ec(nil), true},
			"two audiences": {ec(map[string]any{"aud": []string{"other", "shop"}}), true},
			"within skew":   {ec(map[string]any{"exp": now.Add(-4 * time.Minute).Unix(), "nbf": now.Add(4 * time.Minute).Unix()}), true},
			"no expiry":     {ec(map[string]any{"exp": nil}), true},

			"issuer":          {ec(map[string]any{"iss": "https://other.example"}), false},
			"issuer, slash":   {ec(map[string]any{"iss": i.url + "/"}), false},
			"no issuer":       {ec(map[string]any{"iss": nil}), false},
			"audience":        {ec(map[string]any{"aud": "shops"}), false},
			"no audience":     {ec(map[string]any{"aud": nil}), false},
			"empty audience":  {ec(map[string]any{"aud": []string{}}), false},
			"expired":         {ec(map[string]any{"exp": now.Add(-6 * time.Minute).Unix()}), false},
			"expired long":    {ec(map[string]any{"exp": 1}), false},
			"not yet":         {ec(map[string]any{"nbf": now.Add(6 * time.Minute).Unix()}), false},
			"from the future": {ec(map[string]any{"iat": now.Add(6 * time.Minute).Unix()}), false},
			"times as texts":  {ec(map[string]any{"exp": "never"}), false},

			"changed": {good[:len(good)-4] + "AAAA", false}, "no dots": {strings.ReplaceAll(good, ".", ""), false}, "cut": {good[:len(good)/2], false},
			"empty": {"", false}, "rubbish": {strings.Repeat("x", 100), false}, "huge": {good + strings.Repeat("A", maxToken), false},
			"json form": {`{"payload":"","signatures":[]}`, false}, "space": {good + " ", false},
		}
	})
}

func TestForgedTokens(t *testing.T) {
	t.Parallel()
	i, stranger := newIssuer(t), newIssuer(t)
	public, _ := x509.MarshalPKIXPublicKey(&i.rsa.PublicKey)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	embedded, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: stranger.rsa}, (&jose.SignerOptions{EmbedJWK: true}).WithHeader("kid", "rsa"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := jwt.Signed(embedded).Claims(i.claims()).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	i.check(t, func(good string) rows {
		part := func(header string) string {
			return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.SplitN(good, ".", 2)[1]
		}
		return rows{
			"alg none":               {part(`{"alg":"none","kid":"rsa"}`), false},
			"alg none, no signature": {strings.Join(strings.Split(part(`{"alg":"none","kid":"rsa"}`), ".")[:2], ".") + ".", false},
			"alg nOnE":               {part(`{"alg":"nOnE","kid":"rsa"}`), false},
			"HS256, public key PEM":  {i.sign(t, jose.HS256, asPEM, "rsa", nil), false},
			"HS256, public key DER":  {i.sign(t, jose.HS256, public, "rsa", nil), false},
			"HS256, modulus":         {i.sign(t, jose.HS256, i.rsa.N.Bytes(), "rsa", nil), false},
			"HS256, key of the set":  {i.sign(t, jose.HS256, []byte("a secret that stands in a key set"), "oct", nil), false},
			"other algorithm":        {i.sign(t, jose.RS256, i.rsa, "ec", nil), false},
			"key for encryption":     {i.sign(t, jose.RS256, i.rsa, "enc", nil), false},
			"key of its own":         {own, false},
			"stranger's key":         {i.sign(t, jose.RS256, stranger.rsa, "rsa", nil), false},
			"no kid":                 {i.sign(t, jose.RS256, i.rsa, "", nil), false},
			"kid a path":             {i.sign(t, jose.HS256, make([]byte, 32), "../../../dev/null", nil), false},
			"kid a query":            {i.sign(t, jose.RS256, i.rsa, "rsa' OR 1=1 --", nil), false},
			"kid a URL":              {i.sign(t, jose.RS256, stranger.rsa, stranger.url+"/keys", nil), false},
			"jku":                    {part(`{"alg":"RS256","kid":"x","jku":"` + stranger.url + `/keys"}`), false},
			"crit":                   {part(`{"alg":"RS256","kid":"rsa","crit":["b64"],"b64":false}`), false},
		}
	})
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	d, err := opened(t, i.options())
	if err != nil {
		t.Fatal(err)
	}
	good := i.sign(t, jose.RS256, i.rsa, "rsa", nil)
	for name, headers := range map[string][]string{"twice": {"Bearer " + good, "Bearer " + good}, "basic": {"Basic " + good}, "none": nil, "bare": {good}} {
		if code := ask(t, d, headers...); code != 401 {
			t.Errorf("%s: %d", name, code)
		}
	}
	if code := ask(t, d, "bEARER "+good); code != 204 {
		t.Errorf("the scheme counts in any case, got %d", code)
	}
}

// Unknown keys are asked for, but not for each token; those that are gone stop
// to count, and a server that fails takes none away.
func TestKeysAreFetchedAgain(t *testing.T) {
	t.Parallel()
	i, other := newIssuer(t), newIssuer(t)
	d, err := opened(t, i.options())
	if err != nil {
		t.Fatal(err)
	}
	keys := d.(*driver).keys
	older := func(by time.Duration) {
		keys.mu.Lock()
		defer keys.mu.Unlock()
		keys.tried = keys.tried.Add(-by)
	}
	fresh := "Bearer " + i.sign(t, jose.RS256, other.rsa, "new", nil)
	first := "Bearer " + i.sign(t, jose.RS256, i.rsa, "rsa", nil)
	for range 50 {
		if code := ask(t, d, fresh); code != 401 {
			t.Fatal(code)
		}
	}
	if n := i.asks.Load(); n != 1 {
		t.Errorf("keys were asked for %d times, want once", n)
	}
	older(recheck)
	for name, odd := range map[string]http.HandlerFunc{
		"down": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"html": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"keys":[`+strings.Repeat(" ", 2*maxDocument))
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.url+"/keys", http.StatusFound) },
		"cut":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		i.set(odd)
		if code := ask(t, d, fresh); code != 401 {
			t.Errorf("%s: an unknown key counts: %d", name, code)
		}
		if code := ask(t, d, first); code != 204 {
			t.Errorf("%s: a known key does not count: %d", name, code)
		}
		older(recheck)
	}
	i.set(nil, jose.JSONWebKey{Key: &other.rsa.PublicKey, KeyID: "new"})
	if code := ask(t, d, fresh); code != 204 {
		t.Errorf("a new key: %d", code)
	}
	if code := ask(t, d, first); code != 401 {
		t.Errorf("a key that is gone: %d", code)
	}
}

// A key server that does not answer holds up only those with unknown keys, and
// these no longer than they live.
func TestSlowKeyServer(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	d, err := opened(t, i.options())
	if err != nil {
		t.Fatal(err)
	}
	goOn := make(chan struct{})
	defer close(goOn)
	i.set(func(http.ResponseWriter, *http.Request) { <-goOn })
	keys := d.(*driver).keys
	keys.mu.Lock()
	keys.tried = keys.tried.Add(-2 * refresh)
	keys.mu.Unlock()
	if code := ask(t, d, "Bearer "+i.sign(t, jose.RS256, i.rsa, "rsa", nil)); code != 204 {
		t.Errorf("a known key waits: %d", code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := keys.find(ctx, "unknown"); got != nil {
		t.Errorf("found %v", got)
	}
	if n := i.asks.Load(); n > 2 {
		t.Errorf("keys were asked for %d times, want no second time beside the first", n)
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	for name, row := range map[string]struct {
		options map[string]string
		kind    fault.Kind
	}{
		"nobody there":   {map[string]string{"issuer": "http://127.0.0.1:1", "audience": "a"}, fault.Unavailable},
		"no document":    {map[string]string{"issuer": i.url + "/nothing", "audience": "a"}, fault.Unavailable},
		"other issuer":   {map[string]string{"issuer": i.url + "/other", "audience": "a"}, fault.Invalid},
		"no keys":        {map[string]string{"issuer": "x", "jwksURL": i.url + "/.well-known/openid-configuration", "audience": "a"}, fault.Unavailable},
		"cloud metadata": {map[string]string{"issuer": "x", "jwksURL": "http://169.254.169.254/keys", "audience": "a"}, fault.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := opened(t, row.options); err == nil || fault.KindOf(err) != row.kind {
				t.Errorf("%v, want kind %v", err, row.kind)
			}
		})
	}
}
