package nats

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

// TestMoreThanTheWindow publishes more at once than may be under way, from
// several callers: everything is stored once, in the order of its call.
func TestMoreThanTheWindow(t *testing.T) {
	t.Parallel()
	c := opened(t, component.Env{}, Options{URL: natsserver.Start(t, natsserver.Options{}).URL()})
	stream, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders.*"}, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	p := c.Publisher(StreamOptions{})
	const callers, each = 3, mostPending + 100
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			ms := make([]Message, each)
			for i := range ms {
				ms[i].Data = []byte(strconv.Itoa(i))
			}
			if errs := p.Publish(t.Context(), "orders."+strconv.Itoa(n), ms); errs != nil {
				t.Error(errs)
			}
		})
	}
	all.Wait()
	if p.window.under != 0 {
		t.Errorf("%d places are still taken", p.window.under)
	}
	info, err := stream.Info(t.Context())
	if err != nil || info.State.Msgs != callers*each {
		t.Fatalf("%+v, %v", info, err)
	}
	next := map[string]int{}
	for seq := range uint64(callers * each) {
		m, err := stream.GetMsg(t.Context(), seq+1)
		if err != nil {
			t.Fatal(err)
		}
		if want := strconv.Itoa(next[m.Subject]); string(m.Data) != want {
			t.Fatalf("%s has %s where %s is next", m.Subject, m.Data, want)
		}
		next[m.Subject]++
	}
}

// TestAFullWindow has a stream that answers nothing: a call that waits for a place
// ends with its context, and places are free when those who have them gave up.
func TestAFullWindow(t *testing.T) {
	t.Parallel()
	c := opened(t, component.Env{}, Options{URL: natsserver.Start(t, natsserver.Options{}).URL()})
	silent, err := c.nc.Subscribe("orders", func(*nats.Msg) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	p := c.Publisher(StreamOptions{})
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for i, err := range p.Publish(short, "orders", make([]Message, mostPending+1)) {
		if fault.KindOf(err) != fault.Timeout {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if err := silent.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	if errs := p.Publish(t.Context(), "orders", make([]Message, 10)); errs != nil || p.window.under != 0 {
		t.Errorf("%v, %d places are taken", errs, p.window.under)
	}
}
