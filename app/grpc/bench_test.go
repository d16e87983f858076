package grpc_test

import (
	"context"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/cloudevents"
)

// BenchmarkDeliver compares a delivery, outcome included, with a bare call of
// the generated client with the same message, and with one that has a deadline
// and the trace too. Allocations are those of the server too.
func BenchmarkDeliver(b *testing.B) {
	address, _ := start(b, "127.0.0.1:0", []any{says(0, nil, nil)})
	d := delivery(b, 1)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	client := rtv1.NewAppCallbackClient(conn)
	bare := func(b *testing.B) {
		m := appgrpc.TopicEvent(d.Event, "bus", "orders", "/orders")
		if _, err := client.OnTopicEvent(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	full := func(b *testing.B) {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", parent, "grpc-trace-bin", parent[:29])
		if _, err := client.OnTopicEvent(ctx, appgrpc.TopicEvent(d.Event, "bus", "orders", "/orders")); err != nil {
			b.Fatal(err)
		}
	}
	a := app.New(app.Options{Channel: dial(b, address, appgrpc.Options{}), MaxConcurrency: 100})
	ours := func(b *testing.B) {
		if o := a.Event(b.Context(), orders, d); o.Verdict != cloudevents.Ack {
			b.Fatal(o)
		}
	}
	for _, r := range []struct {
		name string
		call func(*testing.B)
	}{{"bare", bare}, {"full", full}, {"deliver", ours}} {
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.call(b)
			}
		})
		b.Run(r.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					r.call(b)
				}
			})
		})
	}
}
