package expr

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
)

// fuzzSeeds are texts of every kind of expression.
func fuzzSeeds() []string {
	return []string{
		`event.type == "order.placed" && event.subject != "x" || !(event.region in ["eu", "us"])`,
		`event.type.startsWith("a") || event.source.endsWith("b") && event.id.contains("1")`,
		`has(event.data) && event.data.items.exists(i, i.n > 1)`,
		`{{ event.id }}.{{ "}}" }}`, "{{", "}}", `{{ r"\" }}`, `{{ {"a":{}} }}`,
		`.data | {id, x: [.items[] | select(.n > 1)]}`, `def f: f; f`, `[range(10)] | add`,
		`event.data.matches("(a+)+$")`, "event.", "((((", "[1].map(x, x)", `"\u00e9" == event.id`,
	}
}

// FuzzCompile holds that no text makes a compiler or an evaluation panic or
// hang, and that every compile error is an *Error with a place.
func FuzzCompile(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s)
	}
	c := New()
	e := scan(f, order)
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		check := func(err error) bool {
			if err == nil {
				return true
			}
			if p, ok := errors.AsType[*Error](err); !ok || p.Line < 1 || p.Column < 1 || p.Text == "" {
				t.Errorf("compile %q: %v", text, err)
			}
			return false
		}
		filter, err := c.CompileFilter(text)
		if check(err) {
			_, _ = filter.Match(e)
		}
		value, err := c.CompileValue(text)
		if check(err) {
			_, _ = value.String(e)
		}
		template, err := c.CompileTemplate(text)
		if check(err) {
			_, _ = template.Render(e)
		}
		jq, err := c.CompileJQ(text)
		if check(err) {
			_, _ = jq.Apply(t.Context(), e)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%q took %s", text, took)
		}
	})
}

// FuzzPlain holds that plain comparisons give the answer that CEL gives.
func FuzzPlain(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s, "type", "order.placed", "3")
	}
	f.Add(`event.attempt == "3" || event.attempt != "4"`, "attempt", "3", "3")
	f.Add(`has(event.zip) && event.zip != "x"`, "zip", "x", `{"a":1}`)
	f.Add(`event.zip == "1.5" || has(event.Zip)`, "zip", "x", `1.5,"Zip":[]`)
	f.Add(`!(event.b && event.a == "true")`, "a", "true", "true")
	c := New()
	f.Fuzz(func(t *testing.T, text, name, value, raw string) {
		filter, err := c.CompileFilter(text)
		if err != nil || filter.plain == nil {
			return
		}
		events := []*cloudevents.Event{scan(t, order)}
		if cloudevents.CheckAttr(cloudevents.Attr{Name: name, Value: value}) == nil {
			events = append(events, events[0].With(cloudevents.Attr{Name: name, Value: value}))
		}
		// The same attribute as JSON that may be a number or boolean.
		if e, err := cloudevents.Scan([]byte(strings.Replace(order, `"zip":"01234"`, `"zip":`+raw, 1))); err == nil {
			events = append(events, e)
		}
		for _, e := range events {
			fast, fastErr := filter.Match(e)
			slow, slowErr := filter.slow(e)
			if fast != slow || (fastErr == nil) != (slowErr == nil) {
				t.Errorf("%q over %s: plain %v, %v; CEL %v, %v", text, e.JSON(), fast, fastErr, slow, slowErr)
			}
		}
	})
}
