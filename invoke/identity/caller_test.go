package identity_test

import (
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/penstock-io/penstock/invoke/identity"
)

func TestCallerIsWhoProvedIt(t *testing.T) {
	want := identity.ID{TrustDomain: "td", Namespace: "n", App: "a"}
	if got, ok := identity.Caller(identity.WithCaller(t.Context(), want)); !ok || got != want {
		t.Errorf("got %v, %v", got, ok)
	}
	if got, ok := identity.Caller(t.Context()); ok || got != (identity.ID{}) {
		t.Errorf("nobody calls, yet it is %v", got)
	}
	other := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{}})
	if got, ok := identity.Caller(other); ok || got != (identity.ID{}) {
		t.Errorf("TLS of another kind proves %v", got)
	}
}
