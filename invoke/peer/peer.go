// Package peer is how sidecars call each other: Dapr's internal protocol
// dapr.proto.internals.v1.ServiceInvocation, both sides of it.
//
// A [Client] sends requests to other sidecars, a [Server] takes those of others
// and hands them to the app. The runtime makes one of each; either may talk to a
// stock sidecar.
//
// It promises that bodies stream both ways at once and that none is held whole,
// but for a sidecar that knows only calls of one message. A path arrives byte for
// byte at another Penstock; a stock sidecar gets it in plain form, as it would
// from its own kind, so that its access rules see what its app sees.
package peer

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

const (
	// pathKey carries the escaped path, verbKey a verb that the protocol has no
	// number for, in the metadata of the call, which a stock sidecar does not hand
	// on.
	pathKey = "penstock-path"
	verbKey = "penstock-verb"
	// trailerPrefix is before the trailers of an app that speaks HTTP, in the
	// trailer of the call.
	trailerPrefix = "penstock-trailer-"

	grpcType     = "application/grpc"
	protobufType = "application/x-protobuf"

	// chunk is the size of one piece of a body, in bytes. A body that is known to
	// be no longer travels in the first message.
	chunk = 32 << 10
	// window is how much of one body, and of one connection, may be under way, in
	// bytes.
	window     = 1 << 20
	connWindow = 4 << 20
	// slack is what a message may have beside its share of a body, in bytes.
	slack = 1 << 20
)

// encode writes a request, without its body, and what goes into the call's
// metadata.
func encode(id string, r *message.Request) (*internalv1.InternalInvokeRequest, metadata.MD) {
	md := metadata.MD{}
	out := &internalv1.InternalInvokeRequest{
		Ver: internalv1.APIVersion_V1, Metadata: internal(r.Header),
		Message: &commonv1.InvokeRequest{Method: message.Plain(r.Path), ContentType: r.Header.Get("Content-Type")},
	}
	if out.Message.Method != r.Path {
		md.Set(pathKey, r.Path)
	}
	if r.TypeURL != "" {
		out.Message.Data = &anypb.Any{TypeUrl: r.TypeURL}
	}
	if r.Verb != "" || !r.RPC {
		number, known := commonv1.HTTPExtension_Verb_value[r.Verb]
		if !known {
			number = int32(commonv1.HTTPExtension_POST)
			md.Set(verbKey, r.Verb)
		}
		out.Message.HttpExtension = &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_Verb(number), Querystring: r.Query}
	}
	if r.RPC {
		delete(out.Metadata, "Content-Type")
		out.Metadata["content-type"] = &internalv1.ListStringValue{Values: []string{grpcType}}
	}
	if r.Length >= 0 && r.Body != nil {
		out.Metadata["Content-Length"] = &internalv1.ListStringValue{Values: []string{strconv.FormatInt(r.Length, 10)}}
	}
	out.Metadata["destination-app-id"] = &internalv1.ListStringValue{Values: []string{id}}
	return out, md
}

// decode reads a request, without its body.
func decode(in *internalv1.InternalInvokeRequest, md metadata.MD) (*message.Request, error) {
	m := in.GetMessage()
	if m == nil {
		return nil, fault.New(fault.Invalid, "read request: it has no message")
	}
	r := &message.Request{
		Query: m.GetHttpExtension().GetQuerystring(), TypeURL: m.GetData().GetTypeUrl(), Length: -1,
		Header: external(in.GetMetadata()), RPC: isRPC(in.GetMetadata()),
	}
	if v := m.GetHttpExtension().GetVerb(); v != commonv1.HTTPExtension_NONE {
		r.Verb = v.String()
	}
	if v := md.Get(verbKey); len(v) == 1 && goodVerb(v[0]) {
		r.Verb = v[0]
	}
	if strings.ContainsFunc(r.Query, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' }) {
		return nil, fault.New(fault.Invalid, "read request: its query holds what a query cannot")
	}
	var err error
	if r.Path, err = message.Path(m.GetMethod()); err != nil {
		return nil, err
	}
	if exact := md.Get(pathKey); len(exact) == 1 {
		path, err := message.Path(exact[0])
		if err != nil || path != exact[0] || message.Plain(path) != m.GetMethod() {
			return nil, fault.New(fault.Invalid, "read request: its two spellings of the path differ")
		}
		r.Path = path
	}
	if length := first(in.GetMetadata(), "content-length"); length != "" && !r.RPC {
		if r.Length, err = strconv.ParseInt(length, 10, 64); err != nil || r.Length < 0 {
			return nil, fault.New(fault.Invalid, "read request: Content-Length %.40q is none", length)
		}
	}
	switch {
	case r.TypeURL != "":
		r.Header.Set("Content-Type", protobufType)
	case m.GetContentType() != "":
		r.Header.Set("Content-Type", m.GetContentType())
	default:
		r.Header.Del("Content-Type")
	}
	return r, nil
}

// goodVerb tells whether a word can be the method of a request.
func goodVerb(verb string) bool {
	return len(verb) <= 32 && message.Good(verb, nil) && verb != http.MethodConnect
}

func first(md map[string]*internalv1.ListStringValue, name string) string {
	for key, list := range md {
		if strings.EqualFold(key, name) && len(list.GetValues()) > 0 {
			return list.GetValues()[0]
		}
	}
	return ""
}

// isRPC tells whether metadata is that of a call over gRPC.
func isRPC(md map[string]*internalv1.ListStringValue) bool {
	v := md["content-type"].GetValues()
	return len(v) > 0 && strings.HasPrefix(v[0], grpcType)
}

// internal writes headers in the form of the protocol.
func internal(h http.Header) map[string]*internalv1.ListStringValue {
	out := make(map[string]*internalv1.ListStringValue, len(h)+3)
	for name, values := range h {
		if key := strings.ToLower(name); strings.HasSuffix(key, "-bin") {
			coded := make([]string, len(values))
			for i, v := range values {
				coded[i] = base64.StdEncoding.EncodeToString([]byte(v))
			}
			out[key] = &internalv1.ListStringValue{Values: coded}
			continue
		}
		valid := values
		for i, v := range values {
			if text := strings.ToValidUTF8(v, "\uFFFD"); text != v {
				valid = append([]string(nil), valid...)
				valid[i] = text
			}
		}
		out[name] = &internalv1.ListStringValue{Values: valid}
	}
	return out
}

// external reads headers; those of gRPC get dapr- in front, as in package message.
func external(md map[string]*internalv1.ListStringValue) http.Header {
	h := make(http.Header, len(md))
	for _, value := range md["Connection"].GetValues() {
		h.Add("Connection", value)
	}
	for key, list := range md {
		values := list.GetValues()
		if strings.HasSuffix(key, "-bin") {
			values = plain(values)
		}
		if len(values) > 0 && (strings.HasSuffix(key, "-bin") || message.Good(strings.TrimPrefix(key, ":"), values)) {
			message.AddMetadata(h, key, values)
		}
	}
	message.Clean(h)
	return h
}

// plain decodes binary values; one that is not base64 is left out.
func plain(values []string) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		if raw, err := base64.StdEncoding.DecodeString(v); err == nil {
			out = append(out, string(raw))
		}
	}
	return out
}

// encodeResponse writes an answer, without its body.
func encodeResponse(r *message.Response) *internalv1.InternalInvokeResponse {
	out := &internalv1.InternalInvokeResponse{
		Status: &internalv1.Status{Code: int32(r.Status)}, Headers: internal(r.Header),
		Message: &commonv1.InvokeResponse{ContentType: r.Header.Get("Content-Type"), Data: &anypb.Any{TypeUrl: r.TypeURL}},
	}
	if r.RPC != nil {
		s := r.RPC.Proto()
		out.Status = &internalv1.Status{Code: s.GetCode(), Message: s.GetMessage(), Details: s.GetDetails()}
		out.Trailers = internal(r.Trailer)
		delete(out.Headers, "Content-Type")
		out.Headers["content-type"] = &internalv1.ListStringValue{Values: []string{grpcType}}
	} else if r.Length >= 0 {
		out.Headers["Content-Length"] = &internalv1.ListStringValue{Values: []string{strconv.FormatInt(r.Length, 10)}}
	}
	return out
}

// decodeResponse reads an answer, without its body. A code below 100 is one of
// gRPC.
func decodeResponse(in *internalv1.InternalInvokeResponse) (*message.Response, error) {
	s := in.GetStatus()
	r := &message.Response{
		Status: int(s.GetCode()), Header: external(in.GetHeaders()), Trailer: http.Header{}, Length: -1,
		TypeURL: in.GetMessage().GetData().GetTypeUrl(),
	}
	switch {
	case s == nil:
		return nil, fault.New(fault.Unavailable, "read answer: it has no status")
	case s.GetCode() < 100:
		r.RPC = status.FromProto(&statuspb.Status{Code: s.GetCode(), Message: s.GetMessage(), Details: s.GetDetails()})
		r.Status = message.HTTPStatus(r.RPC.Code())
		r.Trailer = external(in.GetTrailers())
	case s.GetCode() < 200 || s.GetCode() > 999:
		return nil, fault.New(fault.Unavailable, "read answer: status %d is none", s.GetCode())
	default:
		if length, err := strconv.ParseInt(first(in.GetHeaders(), "content-length"), 10, 64); err == nil && length >= 0 {
			r.Length = length
		}
	}
	switch kind := in.GetMessage().GetContentType(); {
	case r.TypeURL != "":
		r.Header.Set("Content-Type", protobufType)
	case kind != "":
		r.Header.Set("Content-Type", kind)
	}
	return r, nil
}
