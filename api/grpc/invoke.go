package grpc

import (
	"bytes"
	"context"
	"io"
	"strconv"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/invoke/message"
)

// httpStatusKey is where the HTTP status of an app stands that speaks HTTP.
const httpStatusKey = "dapr-http-status"

// InvokeService calls a method of another app. Both bodies are whole messages. An
// app that speaks HTTP answers with its status in the header dapr-http-status; one
// that is no success is an error of the code it stands for.
func (s *service) InvokeService(ctx context.Context, in *rtv1.InvokeServiceRequest) (*commonv1.InvokeResponse, error) {
	r, err := invokeRequest(ctx, in.GetMessage())
	if err != nil {
		return nil, err
	}
	answer, err := s.api.Invoke(ctx, in.GetId(), r)
	if err != nil {
		return nil, err
	}
	kind := answer.Header.Get("Content-Type")
	header := message.Metadata(answer.Header, answer.RPC != nil)
	body, err := message.ReadAll(answer.Body, int64(s.maxBody))
	if err != nil {
		return nil, api.Errorf(api.InvokeFailed, "failed to invoke, id: %.200s, err: %w", in.GetId(), err)
	}
	if answer.RPC != nil {
		// Both fail when the call is over, which the caller sees itself.
		_ = grpc.SetTrailer(ctx, message.Metadata(answer.Trailer, true))
		err = answer.RPC.Err()
	} else {
		header.Set(httpStatusKey, strconv.Itoa(answer.Status))
		if answer.Status/100 != 2 {
			err = message.StatusOf(answer.Status, string(body)).Err()
		}
	}
	_ = grpc.SetHeader(ctx, header)
	if err != nil {
		return nil, err
	}
	return &commonv1.InvokeResponse{ContentType: kind, Data: &anypb.Any{TypeUrl: answer.TypeURL, Value: body}}, nil
}

// invokeRequest reads a request.
func invokeRequest(ctx context.Context, in *commonv1.InvokeRequest) (*message.Request, error) {
	path, err := api.InvokePath(in.GetMethod())
	if err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	data := in.GetData().GetValue()
	r := &message.Request{
		Path: path, Header: message.FromMetadata(md), RPC: true, TypeURL: in.GetData().GetTypeUrl(),
		Body: io.NopCloser(bytes.NewReader(data)), Length: int64(len(data)), Query: in.GetHttpExtension().GetQuerystring(),
	}
	message.Clean(r.Header)
	if !validQuery(r.Query) {
		return nil, api.Errorf(api.InvokeInvalid, "failed to invoke: the query string holds what a query cannot")
	}
	if v := in.GetHttpExtension().GetVerb(); v != commonv1.HTTPExtension_NONE {
		r.Verb = v.String()
	}
	switch {
	case r.TypeURL != "":
		r.Header.Set("Content-Type", "application/x-protobuf")
	case in.GetContentType() != "":
		r.Header.Set("Content-Type", in.GetContentType())
	}
	return r, nil
}

func validQuery(query string) bool {
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}
