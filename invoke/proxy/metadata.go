package proxy

import (
	"net/textproto"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/penstock-io/penstock/invoke/message"
)

// Clean returns metadata, of a call or an answer, without what belongs to one hop
// or to gRPC itself, what is for a sidecar alone, and every token.
func Clean(md metadata.MD) metadata.MD {
	out := make(metadata.MD, len(md)+4)
	for key, values := range md {
		if !ofGRPC(key) && !message.OneHop(textproto.CanonicalMIMEHeaderKey(key)) {
			out[key] = values
		}
	}
	return out
}

// ofGRPC tells whether a key is one that gRPC writes itself, for each hop.
func ofGRPC(key string) bool {
	switch key {
	case "content-type", "user-agent", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-message-type",
		"grpc-status", "grpc-message", "grpc-status-details-bin":
		return true
	}
	return strings.HasPrefix(key, ":")
}

// Introduce says who calls whom, whatever the caller wrote.
func (c *Call) Introduce(id, namespace, callee string) {
	c.Metadata[strings.ToLower(message.CallerID)] = []string{id}
	c.Metadata[strings.ToLower(message.CallerNamespace)] = []string{namespace}
	c.Metadata[strings.ToLower(message.CalleeID)] = []string{callee}
}
