package runtime

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/fault"
)

func event(t testing.TB, contentType, data string) *cloudevents.Event {
	t.Helper()
	e, err := cloudevents.Scan([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"t"}`))
	if err != nil {
		t.Fatal(err)
	}
	if data == "" {
		return e
	}
	return e.WithData(contentType, []byte(data))
}

func TestWithMember(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ data, want string }{
		{"", `{"x":7}`},
		{`{}`, `{"x":7}`},
		{`{"a":1}`, `{"a":1,"x":7}`},
		{` { "b" : 1.00 , "a" : [ 1 ] } `, `{"b":1.00,"a":[ 1 ],"x":7}`},
		{`{"x":1,"a":12345678901234567890}`, `{"a":12345678901234567890,"x":7}`},
		{`{"x":1,"x":2}`, `{"x":7}`},
		{`{"a":{"x":1},"b\"":"<"}`, `{"a":{"x":1},"b\"":"<","x":7}`},
		{`[1]`, ""},
		{`"text"`, ""},
		{`null`, ""},
		{`{"a":1`, ""},
		{`{"a":1}{}`, ""},
		{`{"a":1,}`, ""},
		{"\xff\x00", ""},
	} {
		got, err := withMember(event(t, "application/json", row.data), "x", []byte("7"))
		switch {
		case row.want == "" && err == nil:
			t.Errorf("%q: %s, want an error", row.data, got.Data())
		case row.want != "" && (err != nil || string(got.Data()) != row.want || got.DataContentType() != "application/json"):
			t.Errorf("%q: %v, %v, want %s", row.data, got, err, row.want)
		}
	}
	if _, err := withMember(event(t, "application/json", `{}`), "x", make([]byte, expr.MaxJQOutput)); fault.KindOf(err) != fault.Invalid {
		t.Errorf("too much: %v", err)
	}
}

func FuzzWithMember(f *testing.F) {
	f.Add(`{"a":1}`, "x")
	f.Add(`{"x":{"x":2}}`, `"`)
	f.Fuzz(func(t *testing.T, data, name string) {
		if strings.ContainsRune(name, 0) {
			return
		}
		once, err := withMember(event(t, "application/json", data), name, []byte(`{"v":1}`))
		if err != nil {
			return
		}
		twice, err := withMember(once, name, []byte(`{"v":1}`))
		if err != nil || string(twice.Data()) != string(once.Data()) {
			t.Errorf("%q with %q: %s, then %v, %v", data, name, once.Data(), twice, err)
		}
	})
}
