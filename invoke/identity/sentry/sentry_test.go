package sentry_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sentryv1 "github.com/dapr/dapr/pkg/proto/sentry/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/identity/authority"
	"github.com/penstock-io/penstock/invoke/identity/sentry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sidecar is whom certificates are asked for.
var sidecar = identity.ID{Namespace: "shop", App: "orders"}

func newAuthority(t *testing.T, domain string) *authority.Authority {
	t.Helper()
	a, err := authority.New(domain, authority.Times{Backdate: time.Minute, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// text is a list of certificates as PEM.
func text(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// installation is a control plane: authorities of its own trust domain and of that
// of the apps, which one set of anchors holds.
type installation struct{ own, apps *authority.Authority }

func newInstallation(t *testing.T) installation {
	return installation{newAuthority(t, "localhost"), newAuthority(t, "public")}
}

func (i installation) anchors() string { return text(i.own.Certificate(), i.apps.Certificate()) }

// server plays Sentry.
type server struct {
	sentryv1.UnimplementedCAServer

	mu       sync.Mutex // guards what follows
	apps     *authority.Authority
	lifetime time.Duration
	refuse   error
	as       identity.ID // whom the certificate is for; zero: who asks
	asked    []*sentryv1.SignCertificateRequest
}

// SignCertificate implements CA.
func (s *server) SignCertificate(_ context.Context, in *sentryv1.SignCertificateRequest) (*sentryv1.SignCertificateResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, in)
	if s.refuse != nil {
		return nil, s.refuse
	}
	block, _ := pem.Decode(in.GetCertificateSigningRequest())
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, status.Error(codes.InvalidArgument, "no request")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id := identity.ID{TrustDomain: s.apps.TrustDomain(), Namespace: in.GetNamespace(), App: in.GetId()}
	if s.as != (identity.ID{}) {
		id = s.as
	}
	cert, err := s.apps.Sign(id, request.PublicKey, authority.Times{Backdate: time.Minute, Lifetime: s.lifetime})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &sentryv1.SignCertificateResponse{WorkloadCertificate: []byte(text(cert)), ValidUntil: timestamppb.New(cert.NotAfter)}, nil
}

func (s *server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// serve runs Sentry, which shows an identity of an authority.
func (s *server) serve(t *testing.T, l net.Listener, own *authority.Authority, app string) {
	t.Helper()
	i, err := own.Issue("default", app, authority.Times{Backdate: time.Minute, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{i.Certificate.Raw}, PrivateKey: i.Key}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}})))
	sentryv1.RegisterCAServer(srv, s)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l) // it ends with Stop
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-ended
	})
}

func open(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run runs a source until the test ends.
func run(t *testing.T, o sentry.Options) *sentry.Source {
	t.Helper()
	o.App = sidecar
	s, err := sentry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not come to pass: " + what)
		}
	}
}

// says tells whether there is no identity, for a reason that holds text.
func says(s *sentry.Source, text string) func() bool {
	return func() bool {
		_, err := s.Current()
		return fault.KindOf(err) == fault.Unavailable && strings.Contains(err.Error(), text)
	}
}

func there(s *sentry.Source) func() bool {
	return func() bool { _, err := s.Current(); return err == nil }
}

func TestSentryIssuesAndRenews(t *testing.T) {
	t.Parallel()
	i, l := newInstallation(t), open(t)
	srv := &server{apps: i.apps, lifetime: 3 * time.Second} // certificates count whole seconds
	srv.serve(t, l, i.own, "dapr-sentry")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("who I am"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := run(t, sentry.Options{Address: l.Addr().String(), Anchors: i.anchors(), TokenFile: token})
	eventually(t, "there is an identity", there(s))
	first, err := s.Current()
	if err != nil || first.ID.String() != "spiffe://public/ns/shop/orders" {
		t.Errorf("%v, %v", first, err)
	}
	eventually(t, "there is another one before the first ends", func() bool {
		now, err := s.Current()
		if err != nil {
			t.Fatal(err)
		}
		return now != first && time.Now().Before(first.Certificate.Leaf.NotAfter)
	})
	srv.change(func() {
		in := srv.asked[0]
		if in.GetId() != "orders" || in.GetNamespace() != "shop" || in.GetTrustDomain() != "" || in.GetToken() != "who I am" || in.GetTokenValidator() != sentryv1.SignCertificateRequest_JWKS {
			t.Errorf("it asks %v", in)
		}
		if string(srv.asked[1].GetCertificateSigningRequest()) == string(in.GetCertificateSigningRequest()) {
			t.Error("the key is the same again")
		}
	})
}

func TestSentryIsAskedForEver(t *testing.T) {
	t.Parallel()
	i, l := newInstallation(t), open(t)
	address := l.Addr().String()
	l.Close()
	srv := &server{apps: i.apps, lifetime: time.Hour, refuse: status.Error(codes.PermissionDenied, "who are you?")}
	s := run(t, sentry.Options{Address: address, Anchors: i.anchors()})
	eventually(t, "it says that Sentry is away", says(s, "connection refused"))
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal("somebody took the port: ", err)
	}
	srv.serve(t, l, i.own, "dapr-sentry")
	eventually(t, "it says that Sentry refuses", says(s, "who are you?"))
	srv.change(func() { srv.refuse = nil })
	eventually(t, "there is an identity", there(s))
}

func TestWhoIsNotSentryIsNotAsked(t *testing.T) {
	t.Parallel()
	i, foreign := newInstallation(t), newAuthority(t, "localhost")
	for name, row := range map[string]struct {
		own       *authority.Authority
		app, want string
	}{
		"another app":       {i.own, "dapr-operator", "want spiffe://localhost/ns/default/dapr-sentry"},
		"another domain":    {i.apps, "dapr-sentry", "want spiffe://localhost/ns/default/dapr-sentry"},
		"another authority": {foreign, "dapr-sentry", "unknown authority"},
	} {
		l, srv := open(t), &server{apps: i.apps, lifetime: time.Hour}
		srv.serve(t, l, row.own, row.app)
		s := run(t, sentry.Options{Address: l.Addr().String(), Anchors: i.anchors()})
		eventually(t, name+" is refused", says(s, row.want))
		if srv.count() > 0 {
			t.Errorf("%s is asked", name)
		}
	}
}

func TestAnswersThatAreOfNoUse(t *testing.T) {
	t.Parallel()
	i, foreign := newInstallation(t), newAuthority(t, "public")
	for want, srv := range map[string]*server{
		"it is for spiffe://public/ns/shop/other": {apps: i.apps, lifetime: time.Hour, as: identity.ID{TrustDomain: "public", Namespace: "shop", App: "other"}},
		"expired":           {apps: i.apps, lifetime: -time.Second},
		"unknown authority": {apps: foreign, lifetime: time.Hour},
	} {
		l := open(t)
		srv.serve(t, l, i.own, "dapr-sentry")
		s := run(t, sentry.Options{Address: l.Addr().String(), Anchors: i.anchors()})
		eventually(t, "it says "+want, says(s, want))
	}
}

// An installation that changes its authority has both in its anchors for a while.
func TestAnchorsRotate(t *testing.T) {
	t.Parallel()
	i, l := newInstallation(t), open(t)
	srv := &server{apps: i.apps, lifetime: time.Hour}
	srv.serve(t, l, i.own, "dapr-sentry")
	file := filepath.Join(t.TempDir(), "anchors.pem")
	write := func(text string) {
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(i.anchors())
	s := run(t, sentry.Options{Address: l.Addr().String(), AnchorsFile: file})
	eventually(t, "there is an identity", there(s))
	fresh := newAuthority(t, "public")
	srv.change(func() { srv.apps = fresh })
	write(i.anchors() + text(fresh.Certificate()))
	eventually(t, "it is of the new authority", func() bool {
		now, err := s.Current()
		if err != nil {
			t.Fatal(err)
		}
		return now.Certificate.Leaf.CheckSignatureFrom(fresh.Certificate()) == nil
	})
	before := srv.count()
	write("nonsense")
	write(text(i.own.Certificate(), fresh.Certificate()))
	eventually(t, "the old authority is not believed any more", func() bool {
		now, err := s.Current()
		if err != nil {
			t.Fatal(err)
		}
		old, err := i.apps.Issue("shop", "other", authority.Times{Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		_, err = now.Trust.Verify([]*x509.Certificate{old.Certificate}, x509.ExtKeyUsageClientAuth)
		return err != nil && srv.count() > before
	})
}

func TestWrongOptionsOfSentry(t *testing.T) {
	t.Parallel()
	anchors := newInstallation(t).anchors()
	for want, o := range map[string]sentry.Options{
		"want HOST:PORT":              {Address: "sentry", Anchors: anchors},
		"no PEM block CERTIFICATE":    {Address: "sentry:443"},
		"read trust anchors":          {Address: "sentry:443", AnchorsFile: "/nowhere/ca.pem"},
		"trust domain and namespace:": {Address: "sentry:443", Anchors: anchors, TrustDomain: "No Domain"},
	} {
		if _, err := sentry.New(o); err == nil || fault.Retriable(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}
