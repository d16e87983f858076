package peer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/peer"
)

// shown is a source of whatever a test says, right or wrong.
type shown struct {
	now  atomic.Pointer[identity.Identity]
	used sync.Map // every identity that was asked for
}

func show(i *identity.Identity) *shown {
	s := new(shown)
	s.now.Store(i)
	return s
}

// Run implements [identity.Source].
func (s *shown) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Current implements [identity.Source].
func (s *shown) Current() (*identity.Identity, error) {
	now := s.now.Load()
	if now == nil {
		return nil, fault.New(fault.Unavailable, "get identity: there is none yet")
	}
	s.used.Store(now, true)
	return now, nil
}

// issuer is an authority that signs anything.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newIssuer(t testing.TB) issuer {
	t.Helper()
	a := issuer{}.sign(t, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.URIs, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil, nil
	})
	return issuer{a.Certificate.Leaf, a.Certificate.PrivateKey.(crypto.Signer)}
}

// trust believes issuers in trust domain public.
func trust(list ...issuer) identity.Trust {
	pool := x509.NewCertPool()
	for _, a := range list {
		pool.AddCert(a.cert)
	}
	return identity.Trust{Domains: map[string]*x509.CertPool{"public": pool}}
}

// sign makes an identity, of an app called there unless change changes it. The
// zero issuer lets it sign itself.
func (a issuer) sign(t testing.TB, change func(*x509.Certificate)) *identity.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	number, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: number, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	named("there")(c)
	if change != nil {
		change(c)
	}
	by := a
	if a.cert == nil {
		by = issuer{c, key}
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := identity.OfCertificate(leaf) // it may be for nobody
	return &identity.Identity{ID: id, Certificate: &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}, Trust: trust(a.orNone()...)}
}

func (a issuer) orNone() []issuer {
	if a.cert == nil {
		return nil
	}
	return []issuer{a}
}

// uris names who a certificate is for.
func uris(list ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, s := range list {
			u, err := url.Parse(s)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

// logged is a log that may be written while it is read.
type logged struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

// Write implements [io.Writer].
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func named(app string) func(*x509.Certificate) { return uris("spiffe://public/ns/default/" + app) }

// listenAs serves an app to sidecars that prove who they are.
func listenAs(t testing.TB, a invoke.App, who identity.Source) string {
	t.Helper()
	return messages.listenAs(t, a, who)
}

func (w way) listenAs(t testing.TB, a invoke.App, who identity.Source) string {
	t.Helper()
	return w.serve(t, peer.ServerOptions{AppID: "there", App: a, Identity: who, Drain: 10 * time.Second})
}

func clientAs(t testing.TB, who identity.Source) *peer.Client {
	c := peer.NewClient(peer.ClientOptions{Identity: who})
	t.Cleanup(c.Close)
	return c
}

func get() *message.Request {
	return &message.Request{Verb: "GET", Path: "x", Header: http.Header{"Dapr-Caller-App-Id": {"a lie"}}}
}

// answers is an app that says who calls it.
func answers(calls *atomic.Int64) invoke.App {
	return appFunc(func(ctx context.Context, r *message.Request) (*message.Response, error) {
		calls.Add(1)
		who, _ := identity.Caller(ctx)
		return text(200, who.String()+" "+strings.Join(r.Header["Dapr-Caller-App-Id"], ",")), nil
	})
}

func TestEachSideProvesWhoItIs(t *testing.T) { bothWays(t, eachSideProvesWhoItIs) }

func eachSideProvesWhoItIs(t *testing.T, w way) {
	a, calls := newIssuer(t), new(atomic.Int64)
	at := w.listenAs(t, answers(calls), show(a.sign(t, nil)))
	c := clientAs(t, show(a.sign(t, named("here"))))
	w.prime(t, c, at)
	answer, err := c.Call(t.Context(), at, there, get())
	if err != nil {
		t.Fatal(err)
	}
	if body := all(t, answer.Body); body != "spiffe://public/ns/default/here here" {
		t.Errorf("the app was called by %q", body)
	}
}

// oddity is a certificate that nobody may believe.
type oddity struct {
	by     issuer
	change func(*x509.Certificate)
	want   string
	// right tells who may have it: somebody who is called, who calls, or nobody.
	right string
}

func oddities(a, other issuer) map[string]oddity {
	return map[string]oddity{
		"expired":                   {by: a, change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, want: "expired or is not yet valid"},
		"not yet valid":             {by: a, change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, want: "expired or is not yet valid"},
		"foreign trust domain":      {by: a, change: uris("spiffe://elsewhere/ns/default/there"), want: "its trust domain is foreign"},
		"foreign authority":         {by: other, want: "unknown authority"},
		"self-signed":               {want: "unknown authority"},
		"wildcard app":              {by: a, change: uris("spiffe://public/ns/default/*"), want: "read identity"},
		"wildcard namespace":        {by: a, change: uris("spiffe://public/ns/*/there"), want: "read identity"},
		"names of hosts only":       {by: a, change: func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"*", "there", "127.0.0.1"} }, want: "it has 0"},
		"two names":                 {by: a, change: uris("spiffe://public/ns/default/there", "spiffe://public/ns/default/other"), want: "it has 2"},
		"that of an authority":      {by: a, change: func(c *x509.Certificate) { c.IsCA = true }, want: "that of an authority"},
		"for signing programs":      {by: a, change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, want: "incompatible key usage"},
		"that of another app":       {by: a, change: named("other"), right: "caller", want: "but spiffe://public/ns/default/there is called"},
		"that of another namespace": {by: a, change: uris("spiffe://public/ns/other/there"), right: "caller", want: "but spiffe://public/ns/default/there is called"},
		"for servers only":          {by: a, change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, right: "callee", want: "incompatible key usage"},
	}
}

func TestWhoProvesNothingGetsNowhere(t *testing.T) {
	t.Parallel()
	a, other, calls := newIssuer(t), newIssuer(t), new(atomic.Int64)
	log := new(logged)
	good := show(a.sign(t, nil))
	at := serve(t, peer.ServerOptions{AppID: "there", App: answers(calls), Identity: good, Logger: log.logger()})
	for name, row := range oddities(a, other) {
		odd := row.by.sign(t, row.change)
		odd.ID.TrustDomain, odd.Trust = "public", trust(a)
		if row.right != "caller" {
			_, err := clientAs(t, show(odd)).Call(t.Context(), at, there, get())
			if fault.KindOf(err) != fault.Unavailable { // why is in the server's log; the caller may see a broken pipe
				t.Errorf("%s, called by it: %v", name, err)
			}
		}
		if row.right != "callee" {
			_, err := clientAs(t, good).Call(t.Context(), listenAs(t, answers(calls), show(odd)), there, get())
			if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s, called: %v", name, err)
			}
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls got through", n)
	}
	if !strings.Contains(log.String(), "Connection of another sidecar refused") {
		t.Errorf("the log says %q", log)
	}
}

// An authority that is not trusted any more is refused from then on, and so is
// everybody before there is an identity.
func TestARemovedAuthorityIsRefused(t *testing.T) {
	t.Parallel()
	a, b, calls := newIssuer(t), newIssuer(t), new(atomic.Int64)
	both := a.sign(t, nil)
	both.Trust = trust(a, b)
	server := show(both)
	at := listenAs(t, answers(calls), server)
	caller := b.sign(t, named("here"))
	caller.Trust = trust(a)
	if answer, err := clientAs(t, show(caller)).Call(t.Context(), at, there, get()); err != nil {
		t.Fatal(err)
	} else {
		answer.Body.Close()
	}
	server.now.Store(a.sign(t, nil))
	if _, err := clientAs(t, show(caller)).Call(t.Context(), at, there, get()); err == nil {
		t.Error("its authority is not trusted any more, yet it is let in")
	}
	server.now.Store(nil)
	if _, err := clientAs(t, show(a.sign(t, nil))).Call(t.Context(), at, there, get()); err == nil || calls.Load() != 1 {
		t.Errorf("without an identity there are %d calls: %v", calls.Load(), err)
	}
	if _, err := clientAs(t, new(shown)).Call(t.Context(), listenAs(t, answers(calls), show(both)), there, get()); err == nil || !strings.Contains(err.Error(), "there is none yet") {
		t.Errorf("%v", err)
	}
}

func TestPlainTextAndOldTLSAreRefused(t *testing.T) {
	t.Parallel()
	a, calls := newIssuer(t), new(atomic.Int64)
	who := a.sign(t, nil)
	secure, plain := listenAs(t, answers(calls), show(who)), listen(t, answers(calls), 0)
	_, err := client(t).Call(t.Context(), secure, there, get())
	if err == nil || !strings.Contains(err.Error(), "mutual TLS may be on there and off here") {
		t.Errorf("plain text to TLS: %v", err)
	}
	_, err = clientAs(t, show(who)).Call(t.Context(), plain, there, get())
	if err == nil || !strings.Contains(err.Error(), "seems to speak plain text; turn it on there") {
		t.Errorf("TLS to plain text: %v", err)
	}
	for name, c := range map[string]*tls.Config{
		"TLS 1.2":        {MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*who.Certificate}},
		"HTTP/1.1":       {NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{*who.Certificate}},
		"no protocol":    {Certificates: []tls.Certificate{*who.Certificate}},
		"no certificate": {NextProtos: []string{"h2"}},
	} {
		c.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", secure, c)
		if err == nil { // in TLS 1.3 the server decides after the client
			err = preface(conn)
		}
		if err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	for name, words := range map[string]string{
		"HTTP/1.1": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"upgrade":  "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		"HTTP/2":   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		conn, err := net.Dial("tcp", secure)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, words); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); len(got) > 0 { // it is closed, or reset
			t.Errorf("%s is answered with %q", name, got)
		}
		conn.Close()
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls got through", n)
	}
}

// preface begins HTTP/2 and waits for an answer.
func preface(conn *tls.Conn) error {
	defer conn.Close()
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 9))
	return err
}

// renew gives everybody a certificate of the newest issuer.
func renew(t *testing.T, issuers []issuer, all map[string]*shown) {
	t.Helper()
	believe := trust(issuers...)
	for _, s := range all { // trust comes first, on both sides
		now := *s.now.Load()
		now.Trust = believe
		s.now.Store(&now)
	}
	for who, s := range all {
		fresh := issuers[len(issuers)-1].sign(t, named(who))
		fresh.Trust = believe
		s.now.Store(fresh)
	}
}

// Both sides get another certificate all the time, now and then of another
// authority, and connections open and close meanwhile.
func TestRotationFailsNoCall(t *testing.T) { bothWays(t, rotationFailsNoCall) }

func rotationFailsNoCall(t *testing.T, w way) {
	const every, lasts, most, enough = 20 * time.Millisecond, 1500 * time.Millisecond, 30 * time.Second, 10
	issuers := []issuer{newIssuer(t)}
	server, caller := show(issuers[0].sign(t, nil)), show(issuers[0].sign(t, named("here")))
	calls := new(atomic.Int64)
	at := w.listenAs(t, answers(calls), server)
	ctx, stop := context.WithTimeout(t.Context(), most)
	defer stop()
	var load sync.WaitGroup
	lasting := clientAs(t, caller)
	for n := range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				c := lasting
				if n > 0 {
					c = clientAs(t, caller)
				}
				for range 20 {
					answer, err := c.Call(t.Context(), at, there, get())
					if err != nil {
						t.Errorf("call %d: %v", calls.Load(), err)
						return
					}
					all(t, answer.Body)
				}
				if n > 0 {
					c.Close()
				}
			}
		})
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	used := func() (n int) {
		server.used.Range(func(any, any) bool { n++; return true })
		return n
	}
	began := time.Now()
	// A busy machine takes longer until there were enough handshakes.
	for n := 1; ctx.Err() == nil && (time.Since(began) < lasts || used() < enough); n++ {
		<-tick.C
		if n%10 == 0 {
			issuers = append(issuers, newIssuer(t)) // a handshake under way may still need the old one
		}
		renew(t, issuers, map[string]*shown{"there": server, "here": caller})
	}
	stop()
	load.Wait()
	t.Logf("%d calls, %d identities used", calls.Load(), used())
	if calls.Load() == 0 || used() < enough {
		t.Error("nothing was tried")
	}
}
