package grpc

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/fault"
)

// maxText bounds every text of a status, in bytes. A status travels as headers,
// and clients refuse those beyond 8 KiB.
const maxText = 512

// text makes s one that a message may hold, and short.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// texts is text for the values of a map, which is not changed; they may be long.
func texts(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v, "\uFFFD")
	}
	return out
}

// statusOf writes an error as a status. The end of the caller's own context
// keeps its code, so that the log tells it from failures.
func statusOf(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ready := err.(interface{ GRPCStatus() *status.Status }); ready { // not one that a component has wrapped
		return err
	}
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		return status.FromContextError(ended).Err()
	}
	e := api.AsError(err)
	st := status.New(codes.Code(e.Problem.GRPCCode()), text(e.Message))
	with, failed := st.WithDetails(details(e)...)
	if failed != nil { // a detail that cannot be written is not worth the error
		return st.Err()
	}
	return with.Err()
}

// details are those of Dapr's rich form. Where Dapr has none, the reason is the
// error code that HTTP callers see.
func details(e *api.Error) []protoadapt.MessageV1 {
	info := &errdetails.ErrorInfo{Reason: cmp.Or(e.Problem.Reason(), e.Problem.Code()), Domain: api.Domain}
	for k, v := range e.Metadata {
		if info.Metadata == nil {
			info.Metadata = make(map[string]string, len(e.Metadata))
		}
		info.Metadata[k] = text(v)
	}
	out := []protoadapt.MessageV1{info}
	if e.ResourceType != "" {
		out = append(out, &errdetails.ResourceInfo{
			ResourceType: e.ResourceType, ResourceName: text(e.ResourceName), Description: text(e.Message),
		})
	}
	if after := fault.RetryAfter(e); after > 0 {
		out = append(out, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	return out
}
