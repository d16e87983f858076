package peer

import (
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/penstock-io/penstock/invoke/identity"
)

// maxAge is how long one connection with mutual TLS is used. It bounds how long
// somebody gets in whose certificate has ended, or whose authority is not trusted
// any more. Calls under way go on.
const maxAge = time.Hour

func (s *Server) keepalive() keepalive.ServerParameters {
	p := keepalive.ServerParameters{Time: askAlive, Timeout: answerAlive}
	if s.o.Identity != nil {
		p.MaxConnectionAge = maxAge
	}
	return p
}

// credentials are what turns mutual TLS on.
func (s *Server) credentials() credentials.TransportCredentials {
	if s.o.Identity == nil {
		return nil
	}
	var said atomic.Int64 // when somebody was refused, in the log
	return identity.ServerCredentials(s.o.Identity, func(from net.Addr, err error) {
		now, last := time.Now().UnixNano(), said.Load()
		if now-last > int64(sayRefused) && said.CompareAndSwap(last, now) {
			s.o.Logger.Warn("Connection of another sidecar refused", "from", from.String(), "error", err)
		}
	})
}

// secure tells gRPC that the handshake was made.
func (s *Server) secure() []grpc.ServerOption {
	if s.creds == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.Creds(opened{s.creds})}
}

// sayRefused is how often refused connections are logged, at most.
const sayRefused = time.Second

// advice says more about a connection that the other side closed before the first
// call, which is all that gRPC says when that side wants mutual TLS.
func advice(text string) string {
	switch {
	case strings.Contains(text, "remote error: tls: "):
		return "; the other side does not believe who we are, or has no identity itself"
	case strings.Contains(text, "error reading server preface"):
		return "; mutual TLS may be on there and off here"
	}
	return ""
}
