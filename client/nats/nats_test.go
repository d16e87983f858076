package nats

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

func TestMain(m *testing.M) { os.Exit(natsserver.Main(m)) }

// limit is how long a test waits for what must come.
const limit = time.Minute

// opened connects for the length of a test.
func opened(t *testing.T, env component.Env, o Options) *Conn {
	t.Helper()
	c, err := Open(t.Context(), env, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// tried connects and closes again.
func tried(t *testing.T, o Options) error {
	c, err := Open(t.Context(), component.Env{}, o)
	if err != nil {
		return err
	}
	return errors.Join(c.Raw().FlushTimeout(limit), c.Close())
}

// eventually polls until f has no error.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// identity is a user's key and its seed.
func identity(t *testing.T, make func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, public, seed string) {
	t.Helper()
	pair, err := make()
	if err != nil {
		t.Fatal(err)
	}
	public, err = pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return pair, public, string(secret)
}

// encoded signs claims.
func encoded(t *testing.T, c jwt.Claims, by nkeys.KeyPair) string {
	t.Helper()
	text, err := c.Encode(by)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// operated is a server whose users show tokens that an account has signed, and
// such a token.
func operated(t *testing.T, user string) (url, token string) {
	t.Helper()
	operator, operatorName, _ := identity(t, nkeys.CreateOperator)
	account, accountName, _ := identity(t, nkeys.CreateAccount)
	_, systemName, _ := identity(t, nkeys.CreateAccount)
	oc := jwt.NewOperatorClaims(operatorName)
	oc.SystemAccount = systemName
	s := natsserver.Start(t, natsserver.Options{Config: fmt.Sprintf(
		"operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n%s: %s\n%s: %s\n}\n",
		encoded(t, oc, operator), systemName,
		accountName, encoded(t, jwt.NewAccountClaims(accountName), operator),
		systemName, encoded(t, jwt.NewAccountClaims(systemName), operator))})
	return s.URL(), encoded(t, jwt.NewUserClaims(user), account)
}

// TestIdentity has every way to say who one is, right and wrong.
func TestIdentity(t *testing.T) {
	t.Parallel()
	_, user, seed := identity(t, nkeys.CreateUser)
	_, _, otherSeed := identity(t, nkeys.CreateUser)
	byToken := natsserver.Start(t, natsserver.Options{Token: "right-token"}).URL()
	byName := natsserver.Start(t, natsserver.Options{Username: "ann", Password: "right-word"}).URL()
	byKey := natsserver.Start(t, natsserver.Options{Config: "authorization { users = [ { nkey: " + user + " } ] }"}).URL()
	byJWT, token := operated(t, user)
	secret := component.NewSecret
	for name, row := range map[string]struct {
		o  Options
		ok bool
	}{
		"token":             {Options{URL: byToken, Token: secret("right-token")}, true},
		"wrong token":       {Options{URL: byToken, Token: secret("wrong-token")}, false},
		"no token":          {Options{URL: byToken}, false},
		"password":          {Options{URL: byName, Username: "ann", Password: secret("right-word")}, true},
		"wrong password":    {Options{URL: byName, Username: "ann", Password: secret("wrong-word")}, false},
		"unknown user":      {Options{URL: byName, Username: "bob", Password: secret("right-word")}, false},
		"nobody":            {Options{URL: byName}, false},
		"key":               {Options{URL: byKey, SeedKey: secret(seed)}, true},
		"key and a newline": {Options{URL: byKey, SeedKey: secret(seed + "\n")}, true},
		"unknown key":       {Options{URL: byKey, SeedKey: secret(otherSeed)}, false},
		"JWT":               {Options{URL: byJWT, JWT: secret(token + "\n"), SeedKey: secret(seed)}, true},
		"JWT of another":    {Options{URL: byJWT, JWT: secret(token), SeedKey: secret(otherSeed)}, false},
		"no JWT":            {Options{URL: byJWT}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tried(t, row.o)
			if row.ok != (err == nil) || err != nil && fault.KindOf(err) != fault.Denied {
				t.Errorf("%v (%v), want success %v or denied", err, fault.KindOf(err), row.ok)
			}
			for _, s := range []component.Secret{row.o.Token, row.o.Password, row.o.SeedKey, row.o.JWT} {
				if err != nil && !s.IsZero() && strings.Contains(err.Error(), s.Reveal()) {
					t.Errorf("the error tells a secret: %v", err)
				}
			}
		})
	}
}

func TestSeedThatIsNone(t *testing.T) {
	t.Parallel()
	for _, jwt := range []string{"", "some"} {
		_, err := Open(t.Context(), component.Env{}, Options{URL: "nats://127.0.0.1:1", JWT: component.NewSecret(jwt), SeedKey: component.NewSecret("hush-hush")})
		if err == nil || fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "seedKey") || strings.Contains(err.Error(), "hush-hush") {
			t.Errorf("with JWT %q: %v (%v), want invalid, with the option and without its value", jwt, err, fault.KindOf(err))
		}
	}
}

// pair makes a certificate of its own for 127.0.0.1, as PEM.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// file writes a file of a test and returns its path.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTLS has a server that shows a certificate and asks for one.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca, caKey := pair(t)
	cert, key := pair(t)
	s := natsserver.Start(t, natsserver.Options{Config: fmt.Sprintf(
		"tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 30 }", file(t, ca), file(t, caKey), file(t, cert))})
	good := Options{URL: s.URL(), CACert: ca, ClientCert: cert, ClientKey: component.NewSecret(key)}
	for name, row := range map[string]struct {
		change func(*Options)
		ok     bool
	}{
		"right":       {func(*Options) {}, true},
		"URL of TLS":  {func(o *Options) { o.URL = strings.Replace(o.URL, "nats:", "tls:", 1) }, true},
		"from files":  {func(o *Options) { o.CACert, o.ClientCert = file(t, ca), file(t, cert) }, true},
		"unknown CA":  {func(o *Options) { o.CACert = "" }, false},
		"unknown":     {func(o *Options) { o.ClientCert, o.ClientKey = ca, component.NewSecret(caKey) }, false},
		"nobody":      {func(o *Options) { o.ClientCert, o.ClientKey = "", component.Secret{} }, false},
		"nothing set": {func(o *Options) { *o = Options{URL: o.URL} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := good
			row.change(&o)
			err := tried(t, o)
			// A server may also hang up before it has said why.
			if row.ok != (err == nil) || err != nil && fault.KindOf(err) != fault.Denied && fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%v (%v), want success %v or denied", err, fault.KindOf(err), row.ok)
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the error tells the key: %v", err)
			}
		})
	}
}

// TestReconnect has a server that goes and comes, once as a crash. What is
// published meanwhile fails at once and for good.
func TestReconnect(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	c := opened(t, component.Env{}, Options{URL: s.URL()})
	p := c.Publisher(StreamOptions{})
	stored := 0
	publish := func() error {
		if err := first(p.Publish(t.Context(), "orders", []Message{{Data: []byte("x")}})); err != nil {
			return err
		}
		stored++
		return nil
	}
	eventually(t, "the first publish", publish)
	for _, leave := range []func(){s.Stop, s.Kill, s.Stop} {
		leave()
		eventually(t, "notice that the server is away", func() error {
			if c.Raw().IsConnected() {
				return errors.New("connected")
			}
			return nil
		})
		for range 50 {
			if err := first(p.Publish(t.Context(), "orders", []Message{{Data: []byte("lost")}})); err == nil || fault.KindOf(err) != fault.Unavailable {
				t.Fatalf("without a server: %v (%v), want unavailable", err, fault.KindOf(err))
			}
		}
		s.Restart()
		eventually(t, "publish to the server that is back", publish)
	}
	stream, err := c.JetStream().Stream(t.Context(), Name("orders"))
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != uint64(stored) {
		t.Errorf("%d messages are stored, want the %d that were confirmed", n, stored)
	}
}

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

// TestReconnectThoughRefused has a server that does not know the identity for a
// while: that is no reason to give up.
func TestReconnectThoughRefused(t *testing.T) {
	t.Parallel()
	folder := t.TempDir() // an include is looked for beside the configuration
	users := filepath.Join(folder, "users.conf")
	know := func(password string) {
		t.Helper()
		if err := os.WriteFile(users, []byte("authorization { user: ann, password: "+password+" }"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	know("right")
	s := natsserver.Start(t, natsserver.Options{Folder: folder, Config: "include users.conf"})
	c := opened(t, component.Env{}, Options{URL: s.URL(), Username: "ann", Password: component.NewSecret("right")})
	reload := func(password string) {
		t.Helper()
		know(password)
		s.Restart()
	}
	reload("other")
	eventually(t, "be refused", func() error {
		if err := c.Raw().LastError(); !errors.Is(err, nats.ErrAuthorization) {
			return fmt.Errorf("last error %w", err)
		}
		return nil
	})
	// The library's own limit is two refusals in a row.
	before := c.Raw().Stats().Reconnects
	refused := make(chan struct{}, 1)
	c.Raw().SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrAuthorization) {
			select {
			case refused <- struct{}{}:
			default:
			}
		}
	})
	for range 3 {
		select {
		case <-refused:
		case <-time.After(limit):
			t.Fatalf("not refused again within %v: status %v", limit, c.Raw().Status())
		}
	}
	reload("right")
	eventually(t, "be let in again", func() error { return c.Raw().FlushTimeout(time.Second) })
	if c.Raw().Stats().Reconnects == before {
		t.Error("it has not connected anew")
	}
}

func TestPausesBeforeATry(t *testing.T) {
	t.Parallel()
	want := []time.Duration{100, 100, 200, 400, 800, 1600, 2000, 2000}
	for attempt, ms := range want {
		if got := pause(attempt); got != ms*time.Millisecond {
			t.Errorf("attempt %d after %v, want %dms", attempt, got, ms)
		}
	}
	if got := pause(math.MaxInt); got != 2*time.Second {
		t.Errorf("the last attempt of all after %v", got)
	}
	c := opened(t, component.Env{}, Options{URL: natsserver.Start(t, natsserver.Options{}).URL()})
	if o := c.Raw().Opts; o.MaxReconnect >= 0 || !o.AllowReconnect {
		t.Errorf("it gives up after %d tries", o.MaxReconnect)
	}
}

// TestOpenEnds has a host that takes the connection and says nothing, and one
// that does not listen.
func TestOpenEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Open(ctx, component.Env{}, Options{URL: "nats://" + l.Addr().String()})
	if err == nil || fault.KindOf(err) != fault.Timeout {
		t.Errorf("a silent host: %v (%v), want timeout", err, fault.KindOf(err))
	}
	_, err = Open(t.Context(), component.Env{}, Options{URL: "nats://127.0.0.1:1"})
	if err == nil || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("no host: %v (%v), want unavailable", err, fault.KindOf(err))
	}
}

// TestShared has components with the same options, and one with others.
func TestShared(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	env := component.Env{Shared: &component.Shared{}, AppID: "shop"}
	var all []*Conn
	for _, name := range []string{"", "", "other"} {
		c, err := Open(t.Context(), env, Options{URL: s.URL(), ClientName: name})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if all[0].Raw() != all[1].Raw() || all[0].Raw() == all[2].Raw() {
		t.Error("the same options do not share a connection, or others do")
	}
	if a, b := all[0].Raw().Opts.Name, all[2].Raw().Opts.Name; a != "penstock shop" || b != "other" {
		t.Errorf("the server is shown the names %q and %q", a, b)
	}
	for range 2 { // which is allowed, and lets go once
		if err := all[0].Close(); err != nil {
			t.Error(err)
		}
	}
	if err := first(all[1].Publisher(StreamOptions{}).Publish(t.Context(), "orders", []Message{{Data: []byte("x")}})); err != nil {
		t.Errorf("after the other has let go: %v", err)
	}
	raw := all[1].Raw()
	for _, c := range all[1:] {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if !raw.IsClosed() {
		t.Error("the connection is open though nobody holds it")
	}
	again := opened(t, env, Options{URL: s.URL()})
	if again.Raw() == raw {
		t.Error("a closed connection is handed out again")
	}
}

func TestEveryOptionOfTheIdentityTellsConnectionsApart(t *testing.T) {
	t.Parallel()
	secret := component.NewSecret
	seen := map[string]string{}
	for name, o := range map[string]Options{
		"none": {}, "url": {URL: "x"}, "name": {ClientName: "x"}, "token": {Token: secret("x")}, "user": {Username: "x"}, "password": {Password: secret("x")},
		"jwt": {JWT: secret("x")}, "seed": {SeedKey: secret("x")}, "ca": {CACert: "x"}, "cert": {ClientCert: "x"}, "key": {ClientKey: secret("x")},
	} {
		if other, ok := seen[o.key()]; ok {
			t.Errorf("%s and %s share a connection", name, other)
		}
		seen[o.key()] = name
	}
	if (Options{Domain: "x", APIPrefix: "y"}).key() != (Options{}).key() {
		t.Error("what is said about JetStream needs a connection of its own")
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	cert, key := pair(t)
	good := Options{URL: "nats://h", ClientCert: cert, ClientKey: component.NewSecret(key), CACert: cert}
	for name, row := range map[string]struct {
		change func(*Options)
		want   string // the option that is named; empty: nothing is wrong
	}{
		"good":              {func(*Options) {}, ""},
		"NKey":              {func(o *Options) { o.SeedKey = component.NewSecret("s") }, ""},
		"JWT alone":         {func(o *Options) { o.JWT = component.NewSecret("j") }, "jwt"},
		"certificate alone": {func(o *Options) { o.ClientKey = component.Secret{} }, "tls_client_cert"},
		"key alone":         {func(o *Options) { o.ClientCert = "" }, "tls_client_key"},
		"authority":         {func(o *Options) { o.CACert = "-----BEGIN CERTIFICATE-----" }, "caCert"},
		"domain and prefix": {func(o *Options) { o.Domain, o.APIPrefix = "d", "p" }, "domain"},
	} {
		o := good
		row.change(&o)
		err := o.Check()
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q named", name, err, row.want)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want fault.Kind
	}{
		{nats.ErrAuthorization, fault.Denied},
		{nats.ErrAuthExpired, fault.Denied},
		{fmt.Errorf("publish: %w", nats.ErrPermissionViolation), fault.Denied},
		{errors.New("tls: bad certificate"), fault.Denied},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, fault.Denied},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, fault.Unavailable},
		{nats.ErrMaxPayload, fault.Invalid},
		{jetstream.ErrStreamNotFound, fault.NotFound},
		{nats.ErrTimeout, fault.Timeout},
		{context.DeadlineExceeded, fault.Timeout},
		{nats.ErrNoServers, fault.Unavailable},
		{nats.ErrDisconnected, fault.Unavailable},
		{jetstream.ErrNoHeartbeat, fault.Unavailable},
		{&jetstream.APIError{Code: 503, Description: "no leader"}, fault.Unavailable},
		{&jetstream.APIError{Code: 400, Description: "maximum messages exceeded"}, fault.Exhausted},
		{&jetstream.APIError{Code: 500, Description: "insufficient resources"}, fault.Exhausted},
		{errors.New("something else"), fault.Internal},
		{fault.New(fault.Conflict, "as it was"), fault.Conflict},
	} {
		if got := Classify(row.err); fault.KindOf(got) != row.want || !errors.Is(got, row.err) {
			t.Errorf("%v is %v, want %v", row.err, fault.KindOf(got), row.want)
		}
	}
	if Classify(nil) != nil {
		t.Error("no error has become one")
	}
}

// TestTooLongIsInvalid: it cannot succeed by trying again, and what comes behind it
// is stored.
func TestTooLongIsInvalid(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{MaxPayload: 64 << 10})
	p := opened(t, component.Env{}, Options{URL: s.URL()}).Publisher(StreamOptions{})
	errs := p.Publish(t.Context(), "orders", []Message{{Data: make([]byte, 64<<10+1)}, {Data: []byte("x")}})
	if len(errs) != 2 || fault.KindOf(errs[0]) != fault.Invalid || !strings.Contains(errs[0].Error(), "max_payload") || errs[1] != nil {
		t.Errorf("errors %v", errs)
	}
}
