package jetstream

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

func TestInterop(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	d := opened(t, url)
	defer closed(t, d)
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	conform.Interop(t, "nats", conform.InteropSetup{
		Driver: d,
		Write: func(t *testing.T, l conform.Layout) {
			t.Helper()
			m := nats.NewMsg(l.Fields["subject"])
			m.Data = []byte(l.Body)
			for name, value := range l.Fields {
				if header, ok := strings.CutPrefix(name, "header "); ok {
					m.Header[header] = []string{value}
				}
			}
			if _, err := js.PublishMsg(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		},
		Look: func(t *testing.T) func() conform.Layout {
			sub, err := conn.SubscribeSync(conform.InteropTopic)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			return func() conform.Layout {
				m, err := sub.NextMsg(20 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				l := conform.Layout{Fields: map[string]string{"subject": m.Subject}, Body: string(m.Data)}
				for name, values := range m.Header {
					l.Fields["header "+name] = values[0]
				}
				return l
			}
		},
	})
}
