package pluggable_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/penstock-io/penstock/bindings"
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

// halves are programs with one half of a binding.
func TestHalves(t *testing.T) {
	t.Parallel()
	p := newPlug()
	for i, row := range []struct {
		services    []any
		in, out     bool
		capabilites []string
	}{
		{[]any{p}, true, false, []string{"INPUT_BINDING"}},
		{[]any{outlet{plug: p}}, false, true, []string{"OUTPUT_BINDING"}},
		{[]any{p, outlet{plug: p}}, true, true, []string{"INPUT_BINDING", "OUTPUT_BINDING"}},
	} {
		dir := folder(t)
		start(t, socket(dir, "plug"), row.services...)
		b := openBinding(t, dir, "half"+strconv.Itoa(i))
		if b.Input() != row.in || b.Output() != row.out || !slices.Equal(b.Instance().Capabilities(), row.capabilites) {
			t.Errorf("%d: input %v, output %v, capabilities %v", i, b.Input(), b.Output(), b.Instance().Capabilities())
		}
		if got := b.Operations(); slices.Equal(got, []string{"create", "get"}) != row.out {
			t.Errorf("%d: operations %v", i, got)
		}
	}
}
