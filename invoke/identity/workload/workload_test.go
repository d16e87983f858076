package workload_test

import (
	"context"
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity/authority"
	"github.com/penstock-io/penstock/invoke/identity/workload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hour = authority.Times{Backdate: time.Minute, Lifetime: time.Hour}

func newAuthority(t *testing.T, domain string) *authority.Authority {
	t.Helper()
	a, err := authority.New(domain, hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// agent plays the API: it tells one answer after the other, or refuses.
type agent struct {
	api.UnimplementedSpiffeWorkloadAPIServer
	answers chan *api.X509SVIDResponse
	refuse  error
}

// FetchX509SVID implements SpiffeWorkloadAPI.
func (a *agent) FetchX509SVID(_ *api.X509SVIDRequest, out grpc.ServerStreamingServer[api.X509SVIDResponse]) error {
	md, _ := metadata.FromIncomingContext(out.Context())
	if strings.Join(md["workload.spiffe.io"], "") != "true" {
		return status.Error(codes.InvalidArgument, "security header is missing")
	}
	if a.refuse != nil {
		return a.refuse
	}
	for {
		select {
		case <-out.Context().Done():
			return out.Context().Err()
		case answer := <-a.answers:
			if err := out.Send(answer); err != nil {
				return err
			}
		}
	}
}

func (a *agent) serve(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	api.RegisterSpiffeWorkloadAPIServer(srv, a)
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

// svid is what the API tells of an identity.
func svid(t *testing.T, a *authority.Authority, app string) *api.X509SVID {
	t.Helper()
	i, err := a.Issue("default", app, hour)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &api.X509SVID{
		SpiffeId: "spiffe://" + a.TrustDomain() + "/ns/default/" + app, X509Svid: i.Certificate.Raw, X509SvidKey: key, Bundle: a.Certificate().Raw,
	}
}

func run(t *testing.T, socket string) *workload.Source {
	t.Helper()
	s, err := workload.New(workload.Options{Socket: "unix://" + socket, Namespace: "default", AppID: "orders"})
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

func says(s *workload.Source, text string) func() bool {
	return func() bool {
		_, err := s.Current()
		return fault.KindOf(err) == fault.Unavailable && strings.Contains(err.Error(), text)
	}
}

func TestTheAgentTellsAndRotates(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t, "example.org"), newAuthority(t, "partner.org")
	socket := filepath.Join(t.TempDir(), "agent.sock")
	s := run(t, socket)
	eventually(t, "it says that the agent is away", says(s, "agent.sock"))
	srv := &agent{answers: make(chan *api.X509SVIDResponse)}
	srv.serve(t, socket)

	srv.answers <- &api.X509SVIDResponse{Svids: []*api.X509SVID{svid(t, a, "other")}}
	eventually(t, "it says whose there are", says(s, "only spiffe://example.org/ns/default/other"))
	tell := &api.X509SVIDResponse{
		Svids:            []*api.X509SVID{svid(t, a, "other"), svid(t, a, "orders")},
		FederatedBundles: map[string][]byte{"spiffe://partner.org": other.Certificate().Raw},
	}
	srv.answers <- tell
	eventually(t, "there is an identity", func() bool { _, err := s.Current(); return err == nil })
	first, err := s.Current()
	if err != nil || first.ID.String() != "spiffe://example.org/ns/default/orders" || len(first.Trust.Domains) != 2 || first.Trust.Any != nil {
		t.Errorf("%v, %v", first, err)
	}
	partner, err := other.Issue("default", "shop", hour)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := first.Trust.Verify([]*x509.Certificate{partner.Certificate}, x509.ExtKeyUsageClientAuth); err != nil || id.TrustDomain != "partner.org" {
		t.Errorf("the partner is %v, %v", id, err)
	}
	srv.answers <- &api.X509SVIDResponse{Svids: []*api.X509SVID{svid(t, a, "orders")}}
	eventually(t, "there is another identity", func() bool {
		now, err := s.Current()
		return err == nil && now != first && len(now.Trust.Domains) == 1
	})
}

func TestTheAgentRefuses(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	(&agent{refuse: status.Error(codes.PermissionDenied, "no identity issued")}).serve(t, socket)
	eventually(t, "it says why", says(run(t, socket), "PermissionDenied: no identity issued"))
}

func TestWrongAddressesOfTheAPI(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "/run/agent.sock", "http://x", "tcp://localhost:1"} {
		if _, err := workload.New(workload.Options{Socket: address}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", address, err)
		}
	}
}
