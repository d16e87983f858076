package grpc_test

import (
	"bytes"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
)

// Publishing 1 KiB of JSON over one connection, client and server in this
// process.
func BenchmarkPublish(b *testing.B) {
	c, i := client(b)
	i.broker.discard = true
	in := &rtv1.PublishEventRequest{
		PubsubName: "bus", Topic: "t", DataContentType: "application/json",
		Data: append(append([]byte(`{"text":"`), bytes.Repeat([]byte("x"), 1000)...), `"}`...),
	}
	b.SetBytes(int64(len(in.GetData())))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.PublishEvent(b.Context(), in); err != nil {
				b.Error(err)
			}
		}
	})
}
