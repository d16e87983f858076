package redis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// ping says whether a server can be asked, once.
func ping(ctx context.Context, o Options) error {
	o.DialTimeout = "30s"
	c, err := Open(ctx, component.Env{}, o)
	if err != nil {
		return err
	}
	return errors.Join(Classify(c.Do(ctx, c.B().Ping().Build()).Error()), c.Close())
}

// pair makes a certificate of its own for 127.0.0.1.
func pair(t *testing.T) (cert, key string, both tls.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
	both, err = tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, both
}

// TestTLS has a server that shows a certificate and asks for one.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca, _, server := pair(t)
	cert, key, client := pair(t)
	known := x509.NewCertPool()
	known.AddCert(client.Leaf)
	s := miniredis.NewMiniRedis()
	if err := s.StartTLS(&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	good := Options{RedisHost: s.Addr(), EnableTLS: true, CACert: ca, ClientCert: cert, ClientKey: component.NewSecret(key)}
	for name, row := range map[string]struct {
		change func(*Options)
		ok     bool
	}{
		"right":                 {func(*Options) {}, true},
		"not verified":          {func(o *Options) { o.CACert, o.InsecureSkipTLSVerify = "", true }, true},
		"unknown authority":     {func(o *Options) { o.CACert = "" }, false},
		"no client certificate": {func(o *Options) { o.ClientCert, o.ClientKey = "", component.Secret{} }, false},
		"no TLS":                {func(o *Options) { o.EnableTLS = false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := good
			row.change(&o)
			err := ping(t.Context(), o)
			if row.ok != (err == nil) || err != nil && fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%v (%v), want success %v", err, fault.KindOf(err), row.ok)
			}
		})
	}
}

// TestIdentity has users and passwords, right and wrong.
func TestIdentity(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	s.RequireUserAuth("ann", "secret")
	for name, row := range map[string]struct {
		user, password string
		kind           fault.Kind
	}{
		"right":          {"ann", "secret", 0},
		"wrong password": {"ann", "guess", fault.Denied},
		"unknown user":   {"bob", "secret", fault.Denied},
		"nobody":         {"", "", fault.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := ping(t.Context(), Options{RedisHost: s.Addr(), RedisUsername: row.user, RedisPassword: component.NewSecret(row.password)})
			if (err == nil) != (row.kind == 0) || err != nil && fault.KindOf(err) != row.kind {
				t.Errorf("%v (%v), want kind %v", err, fault.KindOf(err), row.kind)
			}
			if err != nil && row.password != "" && strings.Contains(err.Error(), row.password) {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

// TestReconnect stops the server for good and starts it again: the client of
// before goes on with it, however often it has failed meanwhile.
func TestReconnect(t *testing.T) {
	t.Parallel()
	s := miniredis.NewMiniRedis()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := Open(t.Context(), component.Env{}, Options{RedisHost: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // of a test that has ended
	for range 3 {
		s.Close()
		for range 200 {
			err := Classify(c.Do(t.Context(), c.B().Ping().Build()).Error())
			if fault.KindOf(err) != fault.Unavailable || err == nil {
				t.Fatalf("without a server: %v, want an error of kind unavailable", err)
			}
		}
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); ; {
			err := c.Do(t.Context(), c.B().Ping().Build()).Error()
			if err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("with the server again: %v", err)
			}
		}
	}
}

// TestOpenEnds has a host that takes the connection and says nothing.
func TestOpenEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Open(ctx, component.Env{}, Options{RedisHost: l.Addr().String()})
	if fault.KindOf(err) != fault.Timeout || err == nil {
		t.Errorf("%v, want an error of kind timeout", err)
	}
}

// TestShared has two components with the same options, and one with others.
func TestShared(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	env := component.Env{Shared: &component.Shared{}}
	var all []*Client
	for _, db := range []int{0, 0, 1} {
		c, err := Open(t.Context(), env, Options{RedisHost: s.Addr(), RedisDB: db})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if all[0].Client != all[1].Client || all[0].Client == all[2].Client {
		t.Error("the same options do not share a connection, or others do")
	}
	if err := all[0].Close(); err != nil {
		t.Error(err)
	}
	if err := all[1].Do(t.Context(), all[1].B().Ping().Build()).Error(); err != nil {
		t.Errorf("after the other has let go: %v", err)
	}
	for _, c := range all[1:] {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	good := Options{RedisHost: "h", DialTimeout: "5s", ReadTimeout: "-1", RedisType: "node"}
	for name, row := range map[string]struct {
		change func(*Options)
		want   string // the option that is named; empty: nothing is wrong
	}{
		"good":              {func(*Options) {}, ""},
		"same port":         {func(o *Options) { o.RedisHost, o.RedisPort = "h:7", 7 }, ""},
		"IPv6":              {func(o *Options) { o.RedisHost = "[::1]" }, ""},
		"two ports":         {func(o *Options) { o.RedisHost, o.RedisPort = "h:7", 8 }, "redisHost"},
		"no host":           {func(o *Options) { o.RedisHost = " , " }, "redisHost"},
		"port":              {func(o *Options) { o.RedisPort = 70000 }, "redisPort"},
		"database":          {func(o *Options) { o.RedisDB = -1 }, "redisDB"},
		"cluster":           {func(o *Options) { o.RedisType, o.RedisDB = "cluster", 1 }, "redisType"},
		"sentinel":          {func(o *Options) { o.Failover = true }, "failover"},
		"Entra":             {func(o *Options) { o.UseEntraID = true }, "useEntraID"},
		"OIDC":              {func(o *Options) { o.UseOIDC = true }, "useOIDC"},
		"duration":          {func(o *Options) { o.ReadTimeout = "soon" }, "readTimeout"},
		"certificate alone": {func(o *Options) { o.ClientCert = "x" }, "clientCert"},
		"authority":         {func(o *Options) { o.CACert = "-----BEGIN CERTIFICATE-----" }, "caCert"},
	} {
		o := good
		row.change(&o)
		err := o.Check()
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q named", name, err, row.want)
		}
	}
	for text, want := range map[string]time.Duration{"3": 3 * time.Millisecond, "3s": 3 * time.Second, "-1": -time.Millisecond} {
		if d, err := Duration(text); err != nil || d != want {
			t.Errorf("%s: %v, %v, want %v", text, d, err, want)
		}
	}
}

// TestKinds has what a server says beyond what TestErrorKinds of the broker has.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	c, err := Open(t.Context(), component.Env{}, Options{RedisHost: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // of a test that has ended
	for text, want := range map[string]fault.Kind{
		"OOM command not allowed":                     fault.Exhausted,
		"MASTERDOWN Link with MASTER is down":         fault.Unavailable,
		"CLUSTERDOWN The cluster is down":             fault.Unavailable,
		"BUSY Redis is busy running a script":         fault.Unavailable,
		"ERR max number of clients reached":           fault.Unavailable,
		"UNBLOCKED the stream key no longer exists":   fault.Unavailable,
		"NOPERM this user has no permissions":         fault.Denied,
		"NOGROUP No such key or consumer group":       fault.NotFound,
		"WRONGTYPE Operation against a key":           fault.Invalid,
		"ERR value is not an integer or out of range": fault.Invalid,
	} {
		s.SetError(text)
		if got := fault.KindOf(Classify(c.Do(t.Context(), c.B().Get().Key("k").Build()).Error())); got != want {
			t.Errorf("%s: kind %v, want %v", text, got, want)
		}
	}
	s.SetError("")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := fault.KindOf(Classify(c.Do(ctx, c.B().Get().Key("k").Build()).Error())); got != fault.Unavailable {
		t.Errorf("cancelled: kind %v, want unavailable", got)
	}
	if Classify(nil) != nil {
		t.Error("nil is an error")
	}
}
