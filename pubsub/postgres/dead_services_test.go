//go:build services

package postgres

import (
	"net/url"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/fake"
	"github.com/penstock-io/penstock/test/services"
)

// TestConnectionsDieWithoutAWord has every connection half-open: the server has
// gone from it, and nobody says so.
func TestConnectionsDieWithoutAWord(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	u, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	p, err := fake.NewProxy(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	u.Host = p.Addr()
	d := openAt(t, u.String(), "tablePrefix", prefix)
	defer closed(t, d)
	got, _ := reading(t, d, "t")
	for range 20 {
		publish(t, d, "t", pubsub.Message{Data: []byte("x")})
	}
	for range 10 {
		next(t, got).Settle(cloudevents.Acked())
	}
	p.HalfOpen()
	began := time.Now()
	for range 10 {
		next(t, got).Settle(cloudevents.Acked())
	}
	eventually(t, "publish does not work again", func() bool {
		err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("y")}})
		t.Logf("publish after %s: %v", time.Since(began), err)
		return err == nil
	})
	for string(next(t, got).Body) != "y" {
		continue
	}
	t.Logf("back after %s", time.Since(began))
}
