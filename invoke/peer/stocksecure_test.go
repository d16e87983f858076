package peer_test

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
)

// stockTLS is what a sidecar of Dapr's does: TLS of 1.2 or later, one set of
// authorities for all trust domains, and of whom it calls the path has to be right.
func stockTLS(who *identity.Identity, authority issuer, path string) credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*who.Certificate}, ClientAuth: tls.RequireAnyClientCert,
		InsecureSkipVerify: true,
		VerifyConnection: func(c tls.ConnectionState) error {
			_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: trust(authority).Domains["public"], KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			if err == nil && path != "" && c.PeerCertificates[0].URIs[0].Path != path {
				err = fault.New(fault.Denied, "it is that of %s", c.PeerCertificates[0].URIs[0])
			}
			return err
		},
	})
}

// ofSentry believes the authority in every trust domain.
func ofSentry(who *identity.Identity, authority issuer) *shown {
	i := *who
	i.Trust = identity.Trust{Any: trust(authority).Domains["public"]}
	return show(&i)
}

func TestAStockSidecarWithMutualTLSIsCalled(t *testing.T) {
	t.Parallel()
	a := newIssuer(t)
	s := &stock{stream: func(ss internalv1.ServiceInvocation_CallLocalStreamServer) error {
		info, _ := peerOf(ss)
		return ss.Send(&internalv1.InternalInvokeResponseStream{
			Response: &internalv1.InternalInvokeResponse{Status: &internalv1.Status{Code: 200}, Message: &commonv1.InvokeResponse{}},
			Payload:  &commonv1.StreamPayload{Data: []byte(info)},
		})
	}}
	for name, row := range map[string]struct {
		who string
		ok  bool
	}{
		"its own trust domain": {"spiffe://public/ns/default/there", true},
		"another trust domain": {"spiffe://team-a/ns/default/there", true},
		"another namespace":    {"spiffe://public/ns/other/there", false},
		"another app":          {"spiffe://public/ns/default/other", false},
	} {
		at := s.listen(t, grpc.Creds(stockTLS(a.sign(t, uris(row.who)), a, "")))
		answer, err := clientAs(t, ofSentry(a.sign(t, named("here")), a)).Call(t.Context(), at, there, get())
		if row.ok != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if body := all(t, answer.Body); body != "/ns/default/here" {
				t.Errorf("%s: it is called by %q", name, body)
			}
		}
	}
}

// peerOf is the path of who calls.
func peerOf(ss grpc.ServerStream) (string, bool) {
	p, ok := grpcpeer.FromContext(ss.Context())
	if !ok {
		return "", false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", false
	}
	return info.State.PeerCertificates[0].URIs[0].Path, true
}

func TestAStockSidecarWithMutualTLSCalls(t *testing.T) {
	t.Parallel()
	a, calls := newIssuer(t), new(atomic.Int64)
	at := listenAs(t, answers(calls), ofSentry(a.sign(t, nil), a))
	conn, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(stockTLS(a.sign(t, uris("spiffe://team-a/ns/shop/stock")), a, "/ns/default/there")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	out, err := internalv1.NewServiceInvocationClient(conn).CallLocal(t.Context(), &internalv1.InternalInvokeRequest{
		Ver: internalv1.APIVersion_V1, Metadata: map[string]*internalv1.ListStringValue{"Dapr-Caller-App-Id": list("a lie")},
		Message: &commonv1.InvokeRequest{Method: "x", HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if body := string(out.GetMessage().GetData().GetValue()); body != "spiffe://team-a/ns/shop/stock stock" {
		t.Errorf("the app was called by %q", body)
	}
}
