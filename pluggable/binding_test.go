package pluggable_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	components "github.com/dapr/dapr/pkg/proto/components/v1"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConformBinding(t *testing.T) {
	dir := folder(t)
	p := newPlug()
	start(t, socket(dir, "plug"), p, outlet{plug: p})
	boxes, keys := &ids{}, &ids{}
	key := func(k string) map[string]string { return map[string]string{"key": k} }
	conform.Binding(t, find(t, dir, "bindings.plug"), conform.BindingSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"box": "box" + boxes.next()} },
		Wrong:   map[string]map[string]string{"direction": {"direction": "sideways"}},
		Feed: func(_ *testing.T, options map[string]string, bodies ...string) {
			for _, body := range bodies {
				p.feed(options["box"], &item{data: []byte(body)})
			}
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("x"), Metadata: key("k")}, {Operation: "get", Metadata: key("k")}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			k := "trip" + keys.next()
			if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: key(k)}); err != nil {
				return nil, err
			}
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "get", Metadata: key(k)})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "no such key", Request: bindings.Request{Operation: "get", Metadata: key("none")}, Kind: fault.NotFound},
		},
	})
}

// A program may serve one half of a binding.
func TestHalves(t *testing.T) {
	t.Parallel()
	p := newPlug()
	for i, row := range []struct {
		services     []any
		in, out      bool
		capabilities []string
	}{
		{[]any{p}, true, false, []string{"INPUT_BINDING"}},
		{[]any{outlet{plug: p}}, false, true, []string{"OUTPUT_BINDING"}},
		{[]any{p, outlet{plug: p}}, true, true, []string{"INPUT_BINDING", "OUTPUT_BINDING"}},
	} {
		dir := folder(t)
		start(t, socket(dir, "plug"), row.services...)
		b := openBinding(t, dir, "half"+strconv.Itoa(i))
		if b.Input() != row.in || b.Output() != row.out || !slices.Equal(b.Instance().Capabilities(), row.capabilities) {
			t.Errorf("%d: input %v, output %v, capabilities %v", i, b.Input(), b.Output(), b.Instance().Capabilities())
		}
		if got := b.Operations(); slices.Equal(got, []string{"create", "get"}) != row.out {
			t.Errorf("%d: operations %v", i, got)
		}
	}
}

// What a component calls its data is believed where it can be.
func TestEventsOfAnInput(t *testing.T) {
	t.Parallel()
	dir, p := folder(t), newPlug()
	start(t, socket(dir, "plug"), p)
	b := openBinding(t, dir, "in", config.Item{Name: "box", Value: "box"})
	rows := []struct {
		item        item
		contentType string
		id          string // empty: any
	}{
		{item{id: "a", data: []byte(`{"n":1}`)}, "application/json", "a"},
		{item{id: "b", data: []byte("text")}, "application/octet-stream", "b"},
		{item{id: "c", data: []byte("text"), contentType: "text/plain"}, "text/plain", "c"},
		{item{id: "d", data: []byte("{not json"), contentType: "application/json"}, "application/json", "d"},
		{item{id: "e\x00\n", data: []byte("x")}, "application/octet-stream", ""},
		{item{id: "f", data: []byte("x"), contentType: "text/\x01"}, "application/octet-stream", ""},
		{item{id: strings.Repeat("g", 1<<20)}, "application/octet-stream", ""},
		{item{id: "h", data: []byte("x"), metadata: map[string]string{"Key": "v"}}, "application/octet-stream", "h"},
	}
	for i := range rows {
		p.feed("box", &rows[i].item)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	n := 0
	err := b.Run(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
		row := &rows[n]
		e := d.Event
		if e.DataContentType() != row.contentType || string(e.Data()) != string(row.item.data) || e.ID() == "" || row.id != "" && e.ID() != row.id ||
			e.Source() != "/app/in" || len(d.Metadata) != len(row.item.metadata) {
			t.Errorf("%d: %s is %s %q of %s with %v", n, e.ID(), e.DataContentType(), e.Data(), e.Source(), d.Metadata)
		}
		d.Settle(cloudevents.Acked())
		if n++; n == len(rows) {
			stop()
		}
		return nil
	})
	if err != nil || n != len(rows) {
		t.Errorf("%d of %d events (%v)", n, len(rows), err)
	}
}

// deaf never answers and never ends a stream.
type deaf struct {
	*plug
	held chan struct{}
}

func (d deaf) Read(s components.InputBinding_ReadServer) error {
	if err := s.Send(&components.ReadResponse{MessageId: "1"}); err != nil {
		return err
	}
	<-d.held
	return nil
}

// A component that does not end its streams must not keep a stop from ending.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	held := make(chan struct{})
	start(t, socket(dir, "plug"), deaf{newPlug(), held})
	t.Cleanup(func() { close(held) }) // before the program is stopped, which waits for it
	b := openBinding(t, dir, "in")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	err := b.Run(ctx, func(context.Context, *cloudevents.Delivery) error {
		stop() // and never settles it
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	closing, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Instance().Close(closing); err != nil || time.Since(began) > 30*time.Second {
		t.Errorf("close took %v: %v", time.Since(began), err)
	}
	b = openBinding(t, dir, "again")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Instance().Close(ended); err != nil {
		t.Errorf("close without time: %v", err)
	}
}
