package dynamodb

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

// suite runs what every binding promises. Fresh makes a table whose key is id,
// find returns an attribute called body of an item.
func suite(t *testing.T, fresh func(*testing.T) map[string]string, find func(t *testing.T, options map[string]string, id string) string) {
	t.Helper()
	conform.Binding(t, Component, conform.BindingSetup{
		Options: fresh,
		Wrong:   map[string]map[string]string{"secretKey": {"secretKey": ""}, "endpoint": {"endpoint": "::"}},
		MaxBody: 300_000,
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte(`{"id":"1","n":1}`)}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error) {
			// The data of this binding is an item, so the bytes go in one of its
			// attributes, as bytes in JSON do.
			id := conform.Unique(t)
			raw, err := json.Marshal(map[string]any{"id": id, "body": data})
			if err != nil {
				return nil, err
			}
			if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: raw}); err != nil {
				return nil, err
			}
			var got []byte
			quoted, err := json.Marshal(find(t, options, id))
			if err != nil {
				return nil, err
			}
			return got, json.Unmarshal(quoted, &got)
		},
		Fails: []conform.BindingFailure{
			{Name: "text", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte("text")}},
			{Name: "null", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte("null")}},
			{Name: "list", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte(`[{"id":"1"}]`)}},
			{Name: "two", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte(`{"id":"1"} {"id":"2"}`)}},
			{Name: "without its key", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte(`{"n":1}`)}},
			{Name: "too large", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte(`{"id":"1","x":"` + strings.Repeat("x", 410<<10) + `"}`)}},
		},
	})
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	s := awsfake.Start(t)
	suite(t, func(t *testing.T) map[string]string {
		o := s.Options()
		o["table"] = conform.Unique(t)
		s.Table(o["table"])
		return o
	}, func(t *testing.T, o map[string]string, id string) string {
		var item struct{ Body struct{ S string } }
		if err := json.Unmarshal([]byte(s.Item(o["table"], id)), &item); err != nil {
			t.Error(err)
		}
		return item.Body.S
	})
}

func opened(t *testing.T, o map[string]string) (component.Driver, error) {
	t.Helper()
	var items []config.Item
	for name, value := range o {
		items = append(items, config.Item{Name: name, Value: value})
	}
	return Component.Open(t.Context(), component.Env{Name: "items", Shared: &component.Shared{}}, items)
}

func TestItem(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	s.Table("items")
	o := s.Options()
	o["table"] = "items"
	d, err := opened(t, o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(t.Context())
	data := `{"id":"1","big":12345678901234567890.125,"yes":true,"none":null,"list":[1,"a",[]],"in":{"deep":{"n":0}},"empty":""}`
	if _, err := d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
	want := `{"big":{"N":"12345678901234567890.125"},"empty":{"S":""},"id":{"S":"1"},"in":{"M":{"deep":{"M":{"n":{"N":"0"}}}}},` +
		`"list":{"L":[{"N":"1"},{"S":"a"},{"L":[]}]},"none":{"NULL":true},"yes":{"BOOL":true}}`
	if diff := cmp.Diff(want, s.Item("items", "1")); diff != "" {
		t.Errorf("item (-want +got)\n%s", diff)
	}
}

func TestMissingTable(t *testing.T) {
	t.Parallel()
	o := awsfake.Start(t).Options()
	o["table"] = "none"
	if _, err := opened(t, o); err == nil || fault.KindOf(err) != fault.NotFound {
		t.Fatalf("got %v", err)
	}
}
