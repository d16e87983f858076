package kafka

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/penstock-io/penstock/test/conform"
)

func TestInterop(t *testing.T) {
	c := cluster(t, kfake.DefaultNumPartitions(1), kfake.SeedTopics(1, conform.InteropTopic))
	d := opened(t, addresses(c), map[string]string{"initialOffset": "oldest"})
	defer shut(t, d)
	conform.Interop(t, "kafka", conform.InteropSetup{
		Driver: d,
		Write: func(t *testing.T, l conform.Layout) {
			t.Helper()
			m := kafka.Message{Key: []byte(l.Fields["key"]), Value: []byte(l.Body)}
			for name, value := range l.Fields {
				if header, ok := strings.CutPrefix(name, "header "); ok {
					m.Headers = append(m.Headers, kafka.Header{Key: header, Value: []byte(value)})
				}
			}
			w := &kafka.Writer{Addr: kafka.TCP(c.ListenAddrs()...), Topic: conform.InteropTopic, BatchTimeout: time.Millisecond}
			if err := w.WriteMessages(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		},
		Look: func(t *testing.T) func() conform.Layout {
			return func() conform.Layout {
				r := kafka.NewReader(kafka.ReaderConfig{Brokers: c.ListenAddrs(), Topic: conform.InteropTopic, MaxWait: 100 * time.Millisecond})
				defer r.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				m, err := r.ReadMessage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				l := conform.Layout{Fields: map[string]string{"key": string(m.Key)}, Body: string(m.Value)}
				for _, h := range m.Headers {
					l.Fields["header "+h.Key] = string(h.Value)
				}
				return l
			}
		},
	})
}
