package bearer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	client "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxDocument  = 1 << 20
	fetchTimeout = 10 * time.Second
	// refresh is how old keys may get, recheck how often unknown ones are asked
	// for.
	refresh = time.Hour
	recheck = 10 * time.Second
	// minRSA is the length in bits of the shortest RSA key that counts.
	minRSA = 2048
)

// keySet is the keys of an issuer, fetched again when they are old or when one
// is asked for that is not there.
type keySet struct {
	log       *slog.Logger
	transport *http.Transport
	url       string
	ctx       context.Context // of fetches; ends with close
	stop      context.CancelFunc
	fetches   sync.WaitGroup

	mu      sync.Mutex
	keys    map[string][]jose.JSONWebKey // by kid
	tried   time.Time                    // when a fetch began last
	pending chan struct{}                // closed when the fetch under way has ended; nil: there is none
	closed  bool
}

// openKeys finds and fetches the keys. Kind Unavailable when a server does not
// answer, or with something else, Invalid when the document is another issuer's.
func openKeys(ctx context.Context, log *slog.Logger, o options) (*keySet, error) {
	k := &keySet{log: log, transport: client.NewTransport(client.Options{HeaderTimeout: fetchTimeout, UseProxy: true}), url: o.JWKSURL}
	if k.url == "" {
		found, err := k.discover(ctx, o.Issuer)
		if err != nil {
			k.transport.CloseIdleConnections()
			return nil, err
		}
		k.url = found
	}
	keys, err := k.fetch(ctx)
	if err != nil {
		k.transport.CloseIdleConnections()
		return nil, err
	}
	k.keys, k.tried = keys, time.Now()
	k.ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	return k, nil
}

func (k *keySet) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.stop()
	k.fetches.Wait()
	k.transport.CloseIdleConnections()
}

// find returns the keys called kid. When there are none, a fetch is waited for,
// but for no longer than the request lives.
func (k *keySet) find(ctx context.Context, kid string) []jose.JSONWebKey {
	if kid == "" {
		return nil // it must say which key it is signed with, as in Dapr
	}
	k.mu.Lock()
	keys := k.keys[kid]
	age := time.Since(k.tried)
	if k.pending == nil && !k.closed && (age > refresh || len(keys) == 0 && age > recheck) {
		k.begin()
	}
	pending := k.pending
	k.mu.Unlock()
	if len(keys) > 0 || pending == nil {
		return keys
	}
	select {
	case <-pending:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[kid]
}

// begin fetches in the background; the caller holds mu.
func (k *keySet) begin() {
	done := make(chan struct{})
	k.pending, k.tried = done, time.Now()
	k.fetches.Go(func() {
		keys, err := k.fetch(k.ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		if err == nil {
			k.keys = keys
		} else if k.ctx.Err() == nil {
			k.log.Warn("Keys cannot be fetched again; those before go on to count", "error", err)
		}
		k.pending = nil
		close(done)
	})
}

// discover reads the issuer's OpenID document.
func (k *keySet) discover(ctx context.Context, issuer string) (string, error) {
	data, err := k.get(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", fault.Wrap(err, "read OpenID document")
	}
	var doc struct {
		Issuer  string `json:"issuer"`
		JWKSURL string `json:"jwks_uri"`
	}
	switch err := json.Unmarshal(data, &doc); {
	case err != nil:
		return "", fault.New(fault.Unavailable, "read OpenID document: it is no JSON of the right form")
	case doc.Issuer != issuer:
		return "", fault.New(fault.Invalid, "read OpenID document: its issuer is %.200q, and option issuer is %q", doc.Issuer, issuer)
	}
	if err := checkURL("issuer", doc.JWKSURL); err != nil {
		return "", fault.New(fault.Invalid, "read OpenID document: its jwks_uri is no URL with http or https")
	}
	return doc.JWKSURL, nil
}

// fetch reads the key set. Keys that cannot check signatures are left out.
func (k *keySet) fetch(ctx context.Context) (map[string][]jose.JSONWebKey, error) {
	data, err := k.get(ctx, k.url)
	if err != nil {
		return nil, fault.Wrap(err, "read key set")
	}
	var doc struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &doc); err != nil || doc.Keys == nil {
		return nil, fault.New(fault.Unavailable, `read key set: it is no JSON with "keys"`)
	}
	keys := map[string][]jose.JSONWebKey{}
	for _, raw := range *doc.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && usable(key) {
			keys[key.KeyID] = append(keys[key.KeyID], key)
		}
	}
	return keys, nil
}

func usable(k jose.JSONWebKey) bool {
	if k.KeyID == "" || k.Use != "" && k.Use != "sig" {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// get reads a document. Redirects are not followed.
func (k *keySet) get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := k.transport.RoundTrip(req)
	if err != nil {
		if fault.KindOf(err) == fault.Internal {
			err = fault.As(fault.Unavailable, err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Unavailable, "get %s: answered %d", url, resp.StatusCode)
	}
	return client.ReadBody(resp.Body, maxDocument)
}
