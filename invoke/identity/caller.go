package identity

import (
	"context"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// proven is what is known of a connection whose other side showed who it is, and
// was believed. Nothing else of this package makes one.
type proven struct {
	credentials.TLSInfo
	id ID
}

// Caller returns who makes the call that ctx belongs to: the identity that the
// other side of its connection proved when it opened, never one that a header
// claims. It is false without mutual TLS.
func Caller(ctx context.Context) (ID, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ID{}, false
	}
	info, ok := p.AuthInfo.(proven)
	return info.id, ok
}

// WithProof returns the ctx of a call on a connection on which somebody proved who
// they are: info is what the handshake of [ServerCredentials] returned.
func WithProof(ctx context.Context, info credentials.AuthInfo) context.Context {
	p := peer.Peer{}
	if known, ok := peer.FromContext(ctx); ok {
		p = *known
	}
	p.AuthInfo = info
	return peer.NewContext(ctx, &p)
}

// WithCaller returns the ctx of a call that id makes, for tests of what [Caller]
// decides.
func WithCaller(ctx context.Context, id ID) context.Context { return WithProof(ctx, proven{id: id}) }
