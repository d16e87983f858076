package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/credentials"

	"github.com/penstock-io/penstock/fault"
)

// transport is mutual TLS for gRPC.
type transport struct {
	config  *tls.Config
	refused func(net.Addr, error)
}

// ServerCredentials are [ServerConfig] for gRPC. Calls have a [Caller]. Refused
// hears of each connection that was not let in; it may be nil.
func ServerCredentials(s Source, refused func(from net.Addr, err error)) credentials.TransportCredentials {
	return &transport{config: ServerConfig(s), refused: refused}
}

// ClientCredentials are [ClientConfig] for gRPC.
func ClientCredentials(s Source, callee ID) credentials.TransportCredentials {
	return &transport{config: ClientConfig(s, callee)}
}

// ClientHandshake implements [credentials.TransportCredentials].
func (t *transport) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Client(raw, t.config)
	info, err := opened(conn, conn.HandshakeContext(ctx))
	if err == nil {
		return conn, info, nil
	}
	_ = raw.Close() // nothing was said yet
	if isPlain(err) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = fault.New(fault.Unavailable, "%w: mutual TLS is on here, the other side seems to speak plain text; turn it on there", err)
	}
	return nil, nil, err
}

// ServerHandshake implements [credentials.TransportCredentials]. The time that it
// may take is set on the connection.
func (t *transport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Server(raw, t.config)
	info, err := opened(conn, conn.Handshake())
	if err == nil {
		return conn, info, nil
	}
	from := raw.RemoteAddr()
	_ = raw.Close() // nothing was said yet
	if isPlain(err) {
		err = fault.New(fault.Denied, "%w: mutual TLS is on here, the other side speaks plain text", err)
	}
	if t.refused != nil && !errors.Is(err, io.EOF) { // who only looks whether the port is open says nothing
		t.refused(from, err)
	}
	return nil, nil, err
}

// opened says who is on the other side of a connection after its handshake.
func opened(conn *tls.Conn, err error) (credentials.AuthInfo, error) {
	if err != nil {
		return nil, err
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != http2 {
		return nil, fault.New(fault.Denied, "open connection: the other side does not offer protocol %s", http2)
	}
	id, err := OfCertificate(state.PeerCertificates[0]) // there is one: it was verified
	if err != nil {
		return nil, err
	}
	return proven{
		TLSInfo: credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}},
		id:      id,
	}, nil
}

func isPlain(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

// Info implements [credentials.TransportCredentials].
func (t *transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements [credentials.TransportCredentials].
func (t *transport) Clone() credentials.TransportCredentials {
	return &transport{config: t.config.Clone(), refused: t.refused}
}

// OverrideServerName implements [credentials.TransportCredentials]. Names of hosts
// do not count.
func (t *transport) OverrideServerName(string) error { return nil }
