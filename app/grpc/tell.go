package grpc

import (
	"context"
	"net/url"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/types/known/anypb"
)

func invokeMethod() method {
	return method{"OnInvoke", rtv1.AppCallback_OnInvoke_FullMethodName}
}

// Tell invokes the app's method called path, as a POST over HTTP would be; any
// answer means that the app has taken it.
func (c *Channel) Tell(ctx context.Context, path string, body []byte, limit time.Duration) error {
	ctx, cancel := limited(ctx, limit)
	defer cancel()
	if plain, err := url.PathUnescape(path); err == nil {
		path = plain
	}
	in := &commonv1.InvokeRequest{
		Method: path, Data: &anypb.Any{Value: body}, ContentType: "application/json",
		HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST},
	}
	return c.invoke(c.outgoing(ctx, nil, nil), invokeMethod(), in, new(commonv1.InvokeResponse), &call{})
}
