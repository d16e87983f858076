// Package sentry is an identity that Dapr's Sentry issues, the authority of a Dapr
// installation.
//
// [New] checks the options and reads the trust anchors. Run makes a key, has Sentry
// sign a certificate for it, and does so again at half of its lifetime; the anchors
// are read again when their file changes.
//
// It promises that Sentry is asked only after it proved, by the anchors, to be the
// Sentry of the control plane; that the key leaves the process never; and that it
// asks for ever, with growing pauses, while Sentry is away or refuses. Anchors are
// believed in every trust domain, because Sentry issues all of an installation.
package sentry

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	sentryv1 "github.com/dapr/dapr/pkg/proto/sentry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/resilience"
)

// Options are the settings of a [Source].
type Options struct {
	// Address is Sentry's, HOST:PORT.
	Address string
	// TrustDomain and Namespace are those of the control plane: Sentry must prove to
	// be dapr-sentry there. Defaults: localhost, default.
	TrustDomain, Namespace string
	// Anchors are the authorities to trust, as PEM; or AnchorsFile is their file.
	Anchors, AnchorsFile string
	// App is whom to ask a certificate for. Sentry chooses its trust domain.
	App identity.ID
	// TokenFile holds what proves to Sentry who asks; empty: nothing does.
	TokenFile string
	// Kubernetes tells that the token is one of Kubernetes.
	Kubernetes bool
	Logger     *slog.Logger
}

// Source is an [identity.Source].
type Source struct {
	identity.Box
	o      Options
	sentry identity.ID
	said   string // what went wrong, in the log
}

var _ identity.Source = (*Source)(nil)

// appID is that of Sentry itself.
const appID = "dapr-sentry"

// New checks the options. Nothing is opened but the file of the anchors.
func New(o Options) (*Source, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{o: o, sentry: identity.ID{
		TrustDomain: cmp.Or(o.TrustDomain, "localhost"), Namespace: cmp.Or(o.Namespace, identity.DefaultNamespace), App: appID,
	}}
	if _, err := identity.Parse(s.sentry.String()); err != nil {
		return nil, fault.Wrap(err, "use control plane's trust domain and namespace")
	}
	if _, port, err := net.SplitHostPort(o.Address); err != nil || port == "" {
		return nil, fault.New(fault.Invalid, "use Sentry's address %.200q: want HOST:PORT", o.Address)
	}
	if _, err := s.anchors(); err != nil {
		return nil, err
	}
	return s, nil
}

// anchors reads them, as what to trust.
func (s *Source) anchors() (identity.Trust, error) {
	text, from := []byte(s.o.Anchors), "trust anchors"
	if s.o.AnchorsFile != "" {
		var err error
		if text, err = os.ReadFile(s.o.AnchorsFile); err != nil {
			return identity.Trust{}, fault.Wrap(err, "read trust anchors")
		}
		from += " of " + s.o.AnchorsFile
	}
	certs, err := identity.ParseCertificates(text)
	if err != nil {
		return identity.Trust{}, fault.Wrap(err, "use %s", from)
	}
	return identity.Trust{Any: identity.Pool(certs)}, nil
}

// Run implements [identity.Source].
func (s *Source) Run(ctx context.Context) error {
	turned := make(chan struct{}, 1)
	if s.o.AnchorsFile != "" {
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			s.watch(ctx, turned)
		}()
		defer func() { <-watching }()
	}
	pauses := resilience.Retry{Initial: time.Second, Max: mostPause}
	for tries := 1; ctx.Err() == nil; tries++ {
		var pause time.Duration
		if err := s.renew(ctx); err != nil {
			pause = pauses.Delay(tries, 0)
			s.failed(ctx, err)
		} else {
			tries = 0
			pause = s.half()
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wait.C:
		case <-turned:
			s.believe()
			tries = 0
		}
		wait.Stop()
	}
	return nil
}

const (
	mostPause  = 30 * time.Second
	leastHalf  = 200 * time.Millisecond
	askTimeout = 10 * time.Second
	lookAgain  = 10 * time.Second
)

// half is how long the certificate is used before the next is asked for.
func (s *Source) half() time.Duration {
	now, err := s.Current()
	if err != nil {
		return leastHalf
	}
	return max(leastHalf, time.Until(now.Certificate.Leaf.NotAfter)/2)
}

// failed notes why there is no new certificate.
func (s *Source) failed(ctx context.Context, err error) {
	s.Fail(err)
	if err.Error() != s.said && ctx.Err() == nil {
		s.said = err.Error()
		s.o.Logger.Warn("Sentry gives no identity; asking again in the background", "error", err)
	}
}

// watch tells when the file of the anchors may have changed, until ctx ends.
func (s *Source) watch(ctx context.Context, turned chan<- struct{}) {
	was, _ := os.ReadFile(s.o.AnchorsFile) // it was read before; a file that is gone is another one
	look := func() {
		now, err := os.ReadFile(s.o.AnchorsFile)
		if err != nil || slices.Equal(now, was) {
			return
		}
		was = now
		select {
		case turned <- struct{}{}:
		default:
		}
	}
	if config.WatchFile(ctx, s.o.AnchorsFile, look, look) == nil {
		return
	}
	tick := time.NewTicker(lookAgain) // the system tells of no changes
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			look()
		}
	}
}

// believe takes over new anchors for the certificate that is there. Whether that is
// of theirs does not matter: whoever they do not vouch for must not get in any more.
func (s *Source) believe() {
	trust, err := s.anchors()
	if err != nil {
		s.o.Logger.Error("Trust anchors cannot be used; those before stay", "error", err)
		return
	}
	s.o.Logger.Info("Trust anchors taken over", "file", s.o.AnchorsFile)
	if now, err := s.Current(); err == nil {
		s.Put(&identity.Identity{ID: now.ID, Certificate: now.Certificate, Trust: trust})
	}
}

// renew gets a new certificate for a new key.
func (s *Source) renew(ctx context.Context) error {
	trust, err := s.anchors()
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fault.Wrap(err, "make key")
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		return fault.Wrap(err, "make request of a certificate")
	}
	chain, err := s.ask(ctx, trust, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}))
	if err != nil {
		return fault.Wrap(err, "ask Sentry at %s", s.o.Address)
	}
	fresh, err := identity.New(chain, key, trust)
	if err != nil {
		return fault.Wrap(err, "use the answer of Sentry at %s", s.o.Address)
	}
	if fresh.ID.App != s.o.App.App || fresh.ID.Namespace != s.o.App.Namespace {
		return fault.New(fault.Denied, "use the answer of Sentry at %s: it is for %s, but this is app %s in namespace %s", s.o.Address, fresh.ID, s.o.App.App, s.o.App.Namespace)
	}
	s.Put(fresh)
	s.said = ""
	s.o.Logger.Info("Identity issued by Sentry", "id", fresh.ID.String(), "expires", chain[0].NotAfter.Format(time.RFC3339))
	return nil
}

// ask has a request signed and returns the chain of certificates.
func (s *Source) ask(ctx context.Context, trust identity.Trust, request []byte) ([]*x509.Certificate, error) {
	in := &sentryv1.SignCertificateRequest{Id: s.o.App.App, Namespace: s.o.App.Namespace, CertificateSigningRequest: request}
	if err := s.prove(in); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(s.o.Address, grpc.WithTransportCredentials(credentials.NewTLS(s.tls(trust))), grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, fault.New(fault.Invalid, "open connection: %w", err)
	}
	defer func() { _ = conn.Close() }() // it only lets go
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := sentryv1.NewCAClient(conn).SignCertificate(ctx, in)
	if err != nil {
		st := status.Convert(err)
		return nil, fault.New(fault.FromGRPCCode(uint32(st.Code())), "%s: %s", st.Code(), strings.ToValidUTF8(st.Message(), "\uFFFD"))
	}
	chain, err := identity.ParseCertificates(out.GetWorkloadCertificate())
	if err != nil {
		return nil, err
	}
	for _, text := range out.GetTrustChainCertificates() {
		more, err := identity.ParseCertificates(text)
		if err != nil {
			return nil, err
		}
		for _, c := range more {
			if !slices.ContainsFunc(chain, c.Equal) {
				chain = append(chain, c)
			}
		}
	}
	return chain, nil
}

// prove puts the token into a request.
func (s *Source) prove(in *sentryv1.SignCertificateRequest) error {
	if s.o.TokenFile == "" {
		return nil // Sentry decides whether it believes who asks
	}
	token, err := os.ReadFile(s.o.TokenFile)
	if err != nil {
		return fault.Wrap(err, "read token")
	}
	if len(token) == 0 {
		return fault.New(fault.Invalid, "read token: %s is empty", s.o.TokenFile)
	}
	in.Token, in.TokenValidator = string(token), sentryv1.SignCertificateRequest_JWKS
	if s.o.Kubernetes {
		in.TokenValidator = sentryv1.SignCertificateRequest_KUBERNETES
	}
	return nil
}

// tls wants Sentry on the other side.
func (s *Source) tls(trust identity.Trust) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // names of hosts do not count; VerifyConnection does it all
		VerifyConnection: func(c tls.ConnectionState) error {
			id, err := trust.Verify(c.PeerCertificates, x509.ExtKeyUsageServerAuth)
			if err == nil && id != s.sentry {
				err = fault.New(fault.Denied, "verify certificate: it is that of %s, want %s; see --control-plane-trust-domain and --control-plane-namespace", id, s.sentry)
			}
			return err
		},
	}
}
