// Package workload is an identity from a SPIFFE Workload API, the socket that an
// agent of SPIRE, Istio or another authority serves on each machine.
//
// [New] checks the address. Run keeps a stream open on which the agent tells the
// identity and the authorities, again whenever one of them changes.
//
// It promises that an agent which is away is tried for ever, with growing pauses,
// and that of several identities only the one of this app is used:
// spiffe://TRUST-DOMAIN/ns/NAMESPACE/APP.
package workload

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/resilience"
)

// Options are the settings of a [Source].
type Options struct {
	// Socket is the address of the API, unix:///run/agent.sock or tcp://127.0.0.1:8081.
	Socket string
	// Namespace and AppID are whom the identity must be for.
	Namespace, AppID string
	Logger           *slog.Logger
}

// Source is an [identity.Source].
type Source struct {
	identity.Box
	o    Options
	said string // what went wrong, in the log
}

var _ identity.Source = (*Source)(nil)

// New checks the options. Nothing is opened.
func New(o Options) (*Source, error) {
	if err := workloadapi.ValidateAddress(o.Socket); err != nil {
		return nil, fault.New(fault.Invalid, "use address %.200q of a SPIFFE Workload API: %w; want unix:///PATH or tcp://IP:PORT", o.Socket, err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{o: o}, nil
}

// mostPause is the longest between two tries.
const mostPause = 30 * time.Second

// Run implements [identity.Source].
func (s *Source) Run(ctx context.Context) error {
	pauses := resilience.Retry{Initial: time.Second, Max: mostPause}
	for tries := 1; ctx.Err() == nil; tries++ {
		s.watch(ctx)
		_ = resilience.Sleep(ctx, pauses.Delay(tries, 0)) // it fails only with ctx
	}
	return nil
}

// watch takes over what the agent tells, until ctx ends or the agent says that it
// will tell nothing.
func (s *Source) watch(ctx context.Context) {
	c, err := workloadapi.New(ctx, workloadapi.WithAddr(s.o.Socket))
	if err == nil {
		err = errors.Join(c.WatchX509Context(ctx, s), c.Close())
	}
	if err != nil && ctx.Err() == nil {
		s.OnX509ContextWatchError(err)
	}
}

// OnX509ContextUpdate implements [workloadapi.X509ContextWatcher].
func (s *Source) OnX509ContextUpdate(c *workloadapi.X509Context) {
	trust := identity.Trust{Domains: map[string]*x509.CertPool{}}
	for _, b := range c.Bundles.Bundles() {
		trust.Domains[b.TrustDomain().Name()] = identity.Pool(b.X509Authorities())
	}
	path := "/ns/" + s.o.Namespace + "/" + s.o.AppID
	var others []string
	for _, svid := range c.SVIDs {
		if svid.ID.Path() != path {
			others = append(others, svid.ID.String())
			continue
		}
		fresh, err := identity.New(svid.Certificates, svid.PrivateKey, trust)
		if err != nil {
			s.failed(fmt.Errorf("use what it tells: %w", err))
			return
		}
		s.Put(fresh)
		s.said = ""
		s.o.Logger.Info("Identity taken over from the SPIFFE Workload API", "id", fresh.ID.String(), "expires", svid.Certificates[0].NotAfter.Format(time.RFC3339))
		return
	}
	s.failed(fault.New(fault.Denied, "it has none for spiffe://TRUST-DOMAIN%s, only %s; register this app there", path, strings.Join(others, ", ")))
}

// OnX509ContextWatchError implements [workloadapi.X509ContextWatcher].
func (s *Source) OnX509ContextWatchError(err error) {
	if st, ok := status.FromError(err); ok {
		err = fmt.Errorf("%s: %s", st.Code(), st.Message())
	}
	s.failed(err)
}

// failed notes why there is no newer identity.
func (s *Source) failed(err error) {
	err = fault.New(fault.Unavailable, "ask the SPIFFE Workload API at %s: %w", s.o.Socket, err)
	s.Fail(err)
	if err.Error() != s.said {
		s.said = err.Error()
		s.o.Logger.Warn("SPIFFE Workload API gives no identity; asking again in the background", "error", err)
	}
}
