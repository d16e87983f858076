package peer_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/invoke/access"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/peer"
)

// shopOnly lets shop see /orders and what is below, and nobody do anything else.
func shopOnly() *access.Guard {
	g := access.NewGuard(slog.New(slog.DiscardHandler))
	g.Set(access.New(config.AccessControl{Action: config.Deny, TrustDomain: "public", Policies: []config.AccessPolicy{{
		App: "shop", Namespace: "default", TrustDomain: "public", Operations: []config.AccessOperation{
			{Path: "/orders/**", Verbs: []string{"GET"}, Action: config.Allow},
			{Path: "/orders/secret", Action: config.Deny},
		},
	}}}, identity.ID{}, true))
	return g
}

// accessRow is a call, and what comes of it. Exact and verb are what one Penstock
// tells another beside the protocol.
type accessRow struct {
	caller, method, exact, verb string

	want codes.Code
	saw  string
}

func accessRows() []accessRow {
	return []accessRow{
		{"shop", "orders", "", "", codes.OK, "GET orders by shop"},
		{"shop", "orders/7", "", "", codes.OK, "GET orders/7 by shop"},
		{"shop", "orders/a b", "orders/a%20b", "", codes.OK, "GET orders/a%20b by shop"},
		{"other", "orders", "", "", codes.PermissionDenied, ""},
		{"staging", "orders", "", "", codes.PermissionDenied, ""},
		{"shop", "orders/secret", "", "", codes.PermissionDenied, ""},
		{"shop", "orders/%73ecret", "", "", codes.PermissionDenied, ""},
		{"shop", "orders/secret", "orders/%73ecret", "", codes.PermissionDenied, ""},
		{"shop", "orders/7", "orders/secret", "", codes.InvalidArgument, ""},
		{"shop", "orders/7", "orders/7/../secret", "", codes.InvalidArgument, ""},
		{"shop", "orders/../admin", "", "", codes.InvalidArgument, ""},
		{"shop", "orders/..;/admin", "", "", codes.InvalidArgument, ""},
		{"shop", "orders%2F..%2Fadmin", "", "", codes.InvalidArgument, ""},
		{"shop", "orders?x", "", "", codes.InvalidArgument, ""},
		{"shop", "orders/sec\x00ret", "", "", codes.InvalidArgument, ""},
		{"shop", "orders", "", "DELETE", codes.PermissionDenied, ""},
		{"shop", "orders", "", "FROB", codes.PermissionDenied, ""},
		{"shop", "admin", "", "", codes.PermissionDenied, ""},
	}
}

// TestAccessOfProvenCallers: a sidecar that writes what it likes into its calls gets
// what its certificate may have.
func TestAccessOfProvenCallers(t *testing.T) {
	t.Parallel()
	a := newIssuer(t)
	var mu sync.Mutex
	got := "" // what the app saw
	app := appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		got = r.Verb + " " + r.Path + " by " + strings.Join(r.Header["Dapr-Caller-App-Id"], ",")
		return text(200, ""), nil
	})
	at := serve(t, peer.ServerOptions{AppID: "there", App: app, Access: shopOnly(), Identity: show(a.sign(t, nil)), Drain: 10 * time.Second})
	callers := map[string]internalv1.ServiceInvocationClient{}
	for name, uri := range map[string]string{
		"shop": "spiffe://public/ns/default/shop", "other": "spiffe://public/ns/default/other", "staging": "spiffe://public/ns/staging/shop",
	} {
		source := show(a.sign(t, uris(uri)))
		conn, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(identity.ClientCredentials(source, identity.ID{Namespace: "default", App: "there"})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		callers[name] = internalv1.NewServiceInvocationClient(conn)
	}
	for _, row := range accessRows() {
		got = ""
		md := metadata.MD{}
		if row.exact != "" {
			md.Set("penstock-path", row.exact)
		}
		if row.verb != "" {
			md.Set("penstock-verb", row.verb)
		}
		_, err := callers[row.caller].CallLocal(metadata.NewOutgoingContext(t.Context(), md), &internalv1.InternalInvokeRequest{
			Metadata: map[string]*internalv1.ListStringValue{"dapr-caller-app-id": {Values: []string{"shop"}}, "dapr-caller-namespace": {Values: []string{"default"}}},
			Message:  &commonv1.InvokeRequest{Method: row.method, HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET}},
		})
		mu.Lock()
		if status.Code(err) != row.want || got != row.saw {
			t.Errorf("%+v: %v, the app saw %q", row, err, got)
		}
		mu.Unlock()
	}
}
