package grpc

import (
	"bytes"
	"context"
	"io"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

var _ app.Invoker = (*Channel)(nil)

// Invoke calls the app's OnInvoke for another app, with the headers of the request
// as metadata. Both bodies are whole messages of at most [Options.MaxBody] bytes.
// Any status the app returns is an answer. It implements [app.Invoker].
func (c *Channel) Invoke(ctx context.Context, r *message.Request) (*message.Response, error) {
	data, err := message.ReadAll(r.Body, c.o.MaxBody)
	if err != nil {
		return nil, fault.Wrap(err, "call app at %s", r.Path)
	}
	message.Clean(r.Header)
	in := &commonv1.InvokeRequest{
		Method: message.Plain(r.Path), ContentType: r.Header.Get("Content-Type"), Data: &anypb.Any{TypeUrl: r.TypeURL, Value: data},
	}
	if r.Verb != "" {
		number, known := commonv1.HTTPExtension_Verb_value[r.Verb]
		if !known {
			number = int32(commonv1.HTTPExtension_POST)
		}
		in.HttpExtension = &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_Verb(number), Querystring: r.Query}
	}
	out := new(commonv1.InvokeResponse)
	var k call
	err = c.conn.Invoke(metadata.NewOutgoingContext(ctx, c.metadata(r)), invokeMethod().path, in, out,
		append(k.options(), grpc.MaxCallSendMsgSize(int(c.o.MaxBody)+slack))...)
	s := status.Convert(err)
	if err != nil && (ctx.Err() != nil || !k.answered()) {
		return nil, k.failed(ctx, invokeMethod().name, err)
	}
	body := out.GetData().GetValue()
	answer := &message.Response{
		Status: message.HTTPStatus(s.Code()), RPC: s, TypeURL: out.GetData().GetTypeUrl(),
		Header: message.FromMetadata(k.header), Trailer: message.FromMetadata(k.trailer),
		Body: io.NopCloser(bytes.NewReader(body)), Length: int64(len(body)),
	}
	message.Clean(answer.Header)
	message.Clean(answer.Trailer)
	delete(answer.Header, "Content-Type")
	switch kind := out.GetContentType(); {
	case answer.TypeURL != "":
		answer.Header.Set("Content-Type", "application/x-protobuf")
	case kind != "":
		answer.Header.Set("Content-Type", kind)
	case s.Code() == codes.OK && len(body) > 0:
		answer.Header.Set("Content-Type", "application/json")
	}
	return answer, nil
}

// slack is what a message may have beside its data, in bytes.
const slack = 1 << 20

// metadata is what goes with the call: the headers, the trace in both forms, and
// the token.
func (c *Channel) metadata(r *message.Request) metadata.MD {
	md := message.Metadata(r.Header, r.RPC)
	if parent := md["traceparent"]; len(parent) == 1 && len(md["grpc-trace-bin"]) == 0 && cloudevents.ValidTraceParent(parent[0]) {
		md["grpc-trace-bin"] = []string{traceBin(parent[0])}
	}
	if c.token != nil {
		md["dapr-api-token"] = c.token
	}
	return md
}
