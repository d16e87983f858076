package expr

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const order = `{"specversion":"1.0","id":"o-1","source":"/shop","type":"order.placed","subject":"s/42",` +
	`"time":"2026-01-02T03:04:05.5Z","region":"eu","attempt":3,"urgent":true,"zip":"01234",` +
	`"datacontenttype":"application/json",` +
	`"data":{"total":120,"price":1.5,"big":9007199254740993,"huge":18446744073709551615,` +
	`"items":[{"sku":"a","n":1},{"sku":"b","n":2}],"note":"é\n","none":null,"ok":true}}`

func scan(t testing.TB, raw string) *cloudevents.Event {
	t.Helper()
	e, err := cloudevents.Scan([]byte(raw))
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return e
}

func binary(t testing.TB, contentType string, data []byte) *cloudevents.Event {
	t.Helper()
	e, err := cloudevents.New(contentType, data,
		cloudevents.Attr{Name: "id", Value: "1"},
		cloudevents.Attr{Name: "source", Value: "s"},
		cloudevents.Attr{Name: "type", Value: "t"})
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	return e
}

// verdict is a filter and what it says of the event called order.
type verdict struct{ text, want string }

const oops = "error: "

func TestMatchAttributes(t *testing.T) {
	t.Parallel()
	testMatch(t, []verdict{
		{`event.type == "order.placed"`, "true"},
		{`"order.placed" == event.type`, "true"},
		{`event.type != "order.placed"`, "false"},
		{`event["type"] == "order.placed"`, "true"},
		{`event.type.startsWith("order.")`, "true"},
		{`event.type.endsWith(".paid")`, "false"},
		{`event.source.contains("sho")`, "true"},
		{`event.type in ["order.paid", "order.placed"]`, "true"},
		{`!(event.type == "x") && (event.region == "eu" || event.nothing == "x")`, "true"},
		{`event.nothing == "x" || event.region == "eu"`, "true"},
		{`event.nothing == "x" && event.region == "us"`, "false"},
		{`has(event.subject) && event.subject.matches("^s/[0-9]+$")`, "true"},
		{`matches(event.subject, event.region)`, "false"},
		{`has(event.nothing)`, "false"},
		{`has(event.data)`, "true"},
		{`has(event.data.total)`, "true"},
		{`has(event.data_base64)`, "false"},
		{`true`, "true"},
		{`event.attempt == 3`, "true"},
		{`event.attempt == "3"`, "false"},
		{`event.attempt != "3"`, "true"},
		{`event.urgent`, "true"},
		{`event.zip == "01234"`, "true"},
		{`event.zip.startsWith("01")`, "true"},
		{`event.attempt.startsWith("3")`, oops + "no such overload"},
	})
}

func TestMatchData(t *testing.T) {
	t.Parallel()
	testMatch(t, []verdict{
		{`event.data.total > 100`, "true"},
		{`event.data.total > 100.5`, "true"},
		{`event.data.price * 2.0 == 3.0`, "true"},
		{`event.data.total * 2.0 == 240.0`, "true"},
		{`event.data.big == 9007199254740993`, "true"},
		{`event.data.big == 9007199254740992`, "false"},
		{`event.data.huge == 18446744073709551615u`, "true"},
		{`event.data.note == "é\n"`, "true"},
		{`event.data.none == null`, "true"},
		{`event.data.ok`, "true"},
		{`event.data.items.exists(i, i.sku == "b" && i.n == 2)`, "true"},
		{`event.data.items[0].sku == "a"`, "true"},
		{`size(event.data.items) == 2`, "true"},
		{`timestamp(event.time) < timestamp("2026-02-01T00:00:00Z")`, "true"},
		{`event.exists(name, name == "region")`, "true"},
		{`"region" in event && !("planet" in event)`, "true"},
		{`size(event) == 12`, "true"},
		{`event == event`, "true"},
		{`event.data.items == [{"sku":"a","n":1},{"sku":"b","n":2}]`, "true"},
		{`event.data.items != [{"sku":"a","n":1}]`, "true"},
		{`event.data.items[0] in event.data.items`, "true"},
		{`event.subject in event.data`, "false"},
		{`event.subject in event.subject`, oops + "no such overload"},
		{`event.nothing == "x"`, oops + "no such key: nothing"},
		{`event.data.nothing == "x"`, oops + "no such key: nothing"},
		{`event.data.total.deeper == 1`, oops + "no such key: deeper"},
		{`event.data.items[7].sku == "a"`, oops + "index out of bounds: 7"},
		{`event[1] == 2`, oops + "no such overload"},
		{`event.data.total`, oops + "the result is a double, a filter must be true or false"},
		{`matches(event.subject, event.subject + "(")`, oops + "error parsing regexp: missing closing ): `s/42(`"},
	})
}

// odd is an event with members that CloudEvents does not allow.
const odd = `{"specversion":"1.0","id":"1","source":"/s","type":"t","my_attr":1.5,"x-y":"z","Meta":{"a":[1,{"b":null}]},` +
	`"big_int":9007199254740993,"huge":1e400,"no_thing":null,"list":["a"],"aB":7,"ab":[1],"data":{"n":1}}`

func TestMatchMembers(t *testing.T) {
	t.Parallel()
	testMatchOf(t, odd, []verdict{
		{`event.my_attr == 1.5`, "true"},
		{`event.my_attr != "1.5"`, "true"},
		{`event.my_attr > 1`, "true"},
		{`event["x-y"] == "z"`, "true"},
		{`event["x-y"] in ["y", "z"]`, "true"},
		{`event["x-y"].startsWith("z")`, "true"},
		{`event.Meta.a[0] == 1`, "true"},
		{`event.Meta.a[1].b == null`, "true"},
		{`event.big_int == 9007199254740993`, "true"},
		{`event.huge == "1e400"`, "true"},
		{`event.no_thing == null`, "true"},
		{`event.list.exists(i, i == "a")`, "true"},
		{`event.list == "a"`, "false"},
		{`has(event.Meta)`, "true"},
		{`has(event.Meta) && event.type == "t"`, "true"},
		{`has(event.Meta.a)`, "true"},
		{`has(event.Meta.b)`, "false"},
		{`has(event.meta)`, "false"},
		{`"x-y" in event && !("x-z" in event)`, "true"},
		{`size(event) == 13`, "true"},
		{`event.exists(name, name == "Meta")`, "true"},
		{`event.ab == 7`, "true"},
		{`event.meta == "x"`, oops + "no such key: meta"},
		{`event.Meta.a[0].b == 1`, oops + "no such key: b"},
	})
}

func testMatch(t *testing.T, rows []verdict) { testMatchOf(t, order, rows) }

func testMatchOf(t *testing.T, text string, rows []verdict) {
	c := New()
	e := scan(t, text)
	for _, r := range rows {
		t.Run(r.text, func(t *testing.T) {
			t.Parallel()
			f, err := c.CompileFilter(r.text)
			if err != nil {
				t.Fatalf("compile: %v", err)
			}
			ok, err := f.Match(e)
			got := fmt.Sprint(ok)
			if err != nil {
				got = oops + strings.TrimPrefix(err.Error(), fmt.Sprintf("evaluate %q: ", r.text))
				if fault.KindOf(err) != fault.Invalid {
					t.Errorf("kind = %v, want invalid", fault.KindOf(err))
				}
			}
			if got != r.want {
				t.Errorf("match = %s, want %s", got, r.want)
			}
		})
	}
}

func TestMatchOnlyParsesDataWhenAsked(t *testing.T) { // not parallel: counts allocations
	f, err := New().CompileFilter(`event.type == "other" && event.data.total > size(event.region)`)
	if err != nil {
		t.Fatal(err)
	}
	e := scan(t, `{"specversion":"1.0","id":"1","source":"s","type":"t","data":[`+strings.Repeat(`{"a":"b"},`, 100_000)+`1]}`)
	if n := testing.AllocsPerRun(10, func() {
		if ok, err := f.Match(e); ok || err != nil {
			t.Errorf("match = %v, %v", ok, err)
		}
	}); n > 20 {
		t.Errorf("%v allocations: the data was parsed", n)
	}
}

func TestDataForms(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, contentType, data, filter string
		want                            bool
	}{
		{"json", "application/json; charset=utf-8", `{"a":1}`, `event.data.a == 1`, true},
		{"json suffix", "application/vnd.x+json", `{"a":1}`, `event.data.a == 1`, true},
		{"json in capitals", "Application/JSON", `[1]`, `event.data[0] == 1`, true},
		{"text", "text/plain", `{"a":1}`, `event.data == "{\"a\":1}"`, true},
		{"bytes", "application/octet-stream", "\xff\x00", `event.data == b"\xff\x00" && event.data_base64 == "/wA="`, true},
		{"bytes that are text", "application/octet-stream", "ab", `event.data == "ab" && !has(event.data_base64)`, true},
		{"none", "", "", `has(event.data)`, false},
	}
	c := New()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f, err := c.CompileFilter(r.filter)
			if err != nil {
				t.Fatal(err)
			}
			data := []byte(r.data)
			if r.data == "" {
				data = nil
			}
			got, err := f.Match(binary(t, r.contentType, data))
			if err != nil || got != r.want {
				t.Errorf("match = %v, %v; want %v", got, err, r.want)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	c := New()
	filter := func(s string) error { _, err := c.CompileFilter(s); return err }
	value := func(s string) error { _, err := c.CompileValue(s); return err }
	template := func(s string) error { _, err := c.CompileTemplate(s); return err }
	jq := func(s string) error { _, err := c.CompileJQ(s); return err }
	rows := []struct {
		name    string
		compile func(string) error
		text    string
		want    string
	}{
		{"empty", filter, " ", `1:1 the expression is empty`},
		{"not text", filter, "event.type == \"\xff\"", `1:16 byte 0xff is not UTF-8`},
		{"unknown variable", filter, `event.id == "x" &&
  evnt.type == "x"`, `2:3 unknown name "evnt": the only variable is event, as in event.type or event.data.id`},
		{"unknown function", filter, `fly(event.id)`, `1:4 unknown function "fly": there are has, size, contains, startsWith, endsWith, matches, exists, all, map, filter, int, double, string, timestamp and duration`},
		{"half an expression", filter, `event.type ==`, `1:14 the expression ends too early`},
		{"string filter", filter, `"yes"`, `1:1 the result is a string, a filter must be true or false`},
		{"number filter", filter, `1 + 1`, `1:1 the result is an int, a filter must be true or false`},
		{"bad types", filter, `1 == "a"`, `1:3 == cannot be applied to (int, string)`},
		{"bad regex", filter, `event.type.matches("(")`, "1:1 error parsing regexp: missing closing ): `(`"},
		{"huge regex", filter, `event.type.matches("(a{100}){10}(b{100}){10}")`, `1:20 regex program size 2042 exceeds limit of 2000`},
		{"list value", value, `[1]`, `1:1 the result is a list(int), which has no text form: want a string, number, boolean or timestamp`},
		{"null value", value, `null`, `1:1 the result is null, which has no text form: want a string, number, boolean or timestamp`},
		{"template in the middle", template, "one\ntwo {{ evnt.id }}", `2:8 unknown name "evnt": the only variable is event, as in event.type or event.data.id`},
		{"template on its second line", template, "one {{ event.id +\n nope }}", `2:2 unknown name "nope": the only variable is event, as in event.type or event.data.id`},
		{"template not closed", template, `a {{ "}}" `, `1:3 "{{" without "}}"`},
		{"template empty", template, `a {{ }}`, `1:5 the expression is empty`},
		{"jq syntax", jq, `.data | {a: }`, `1:13 unexpected token "}"`},
		{"jq end", jq, "{a:\n [1", `2:4 the program ends too early`},
		{"jq function", jq, `.data | fly(1)`, `1:9 function not defined: fly/1`},
		{"jq variable", jq, "1,\n$x", `2:1 variable not defined: $x`},
		{"jq input", jq, `[inputs]`, `1:2 input(s)/0 is not allowed`},
		{"jq module", jq, `import "a" as a; 1`, `1:1 cannot load module: "a"`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			err := r.compile(r.text)
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("error = %v, want an *Error", err)
			}
			if got := fmt.Sprintf("%d:%d %s", e.Line, e.Column, e.Text); got != r.want {
				t.Errorf("error = %s\nwant    %s", got, r.want)
			}
			if fault.KindOf(err) != fault.Invalid {
				t.Errorf("kind = %v, want invalid", fault.KindOf(err))
			}
		})
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	rows := []struct{ text, want string }{
		{`event.id`, "o-1"},
		{`event.attempt`, "3"},
		{`"build." + event.region`, "build.eu"},
		{`event.data.total`, "120"},
		{`event.data.price`, "1.5"},
		{`event.data.big`, "9007199254740993"},
		{`event.data.huge`, "18446744073709551615"},
		{`event.data.total * 1e20`, "1.2e+22"},
		{`event.urgent`, "true"},
		{`1 + 2`, "3"},
		{`timestamp(event.time)`, "2026-01-02T03:04:05.5Z"},
		{`timestamp("2026-01-02T03:04:05+02:00")`, "2026-01-02T01:04:05Z"},
		{`duration("90s")`, "1m30s"},
		{`event.data.items.map(i, i.sku)[1]`, "b"},
		{`event.data.total > 100.0 ? "large" : "small"`, "large"},
		{`event.nothing`, `error: evaluate "event.nothing": no such key: nothing`},
		{`event.data.items`, `error: evaluate "event.data.items": the result is a list, which has no text form`},
		{`event.data.none`, `error: evaluate "event.data.none": the result is null, which has no text form`},
	}
	c := New()
	e := scan(t, order)
	for _, r := range rows {
		t.Run(r.text, func(t *testing.T) {
			t.Parallel()
			v, err := c.CompileValue(r.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.String(e)
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != r.want {
				t.Errorf("value = %s, want %s", got, r.want)
			}
		})
	}
}

func TestTemplateMembers(t *testing.T) {
	t.Parallel()
	tmpl, err := New().CompileTemplate(`{{ event.my_attr }}/{{ event["x-y"] }}/{{ event.Meta.a[0] }}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tmpl.Render(scan(t, odd)); err != nil || got != "1.5/z/1" {
		t.Errorf("rendered %q, %v", got, err)
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	rows := []struct{ text, want string }{
		{"", ""},
		{"plain } text {", "plain } text {"},
		{"{{ event.id }}.json", "o-1.json"},
		{"{{event.id}}/{{event.type}}", "o-1/order.placed"},
		{`{{ "}}" }}`, "}}"},
		{`{{ '\'}}' }}|{{ r"\" }}|{{ """a"}}"b""" }}`, `'}}|\|a"}}"b`},
		{`{{ {"a":{"b":"c"}}.a.b }}`, "c"},
		{`{{ "{{" }}`, "{{"},
		{"{{ event.id // }} not here\n }}!", "o-1!"},
		{"{{ event.id // why }}!", "o-1!"},
		{"{{ event.nothing }}", `error: evaluate " event.nothing ": no such key: nothing`},
	}
	c := New()
	e := scan(t, order)
	for _, r := range rows {
		t.Run(r.text, func(t *testing.T) {
			t.Parallel()
			tmpl, err := c.CompileTemplate(r.text)
			if err != nil {
				t.Fatal(err)
			}
			if tmpl.Constant() == strings.Contains(r.text, "{{") {
				t.Errorf("constant = %v", tmpl.Constant())
			}
			got, err := tmpl.Render(e)
			if err != nil {
				got = "error: " + err.Error()
			}
			if diff := cmp.Diff(r.want, got); diff != "" {
				t.Errorf("render (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConstantsCostNothing(t *testing.T) { // not parallel: counts allocations
	c := New()
	c.env = nil // would panic if a constant asked for CEL
	tmpl, err := c.CompileTemplate("orders")
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = tmpl.Render(nil) }); n != 0 {
		t.Errorf("render of a constant: %v allocations, want 0", n)
	}
}

func TestFastPathAllocatesNothing(t *testing.T) { // not parallel: counts allocations
	f, err := New().CompileFilter(`event.type == "order.placed" && (event.region == "us" || event.source.startsWith("/shop"))`)
	if err != nil {
		t.Fatal(err)
	}
	e := scan(t, order)
	if n := testing.AllocsPerRun(100, func() {
		if ok, err := f.Match(e); !ok || err != nil {
			t.Errorf("match = %v, %v", ok, err)
		}
	}); n != 0 {
		t.Errorf("match: %v allocations, want 0", n)
	}
}

// TestBombs gives every compiler texts that are made to take long, and every
// evaluation that does compile a large event.
func TestBombs(t *testing.T) {
	t.Parallel()
	var data strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&data, `{"n":%d,"s":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},`, i)
	}
	large := scan(t, `{"specversion":"1.0","id":"1","source":"s","type":"t","data":[`+data.String()+`0]}`)
	text := binary(t, "text/plain", []byte(strings.Repeat("a", 4<<20)))
	rows := []struct {
		name, text string
		event      *cloudevents.Event
	}{
		{"1 MB", strings.Repeat("x", 1<<20), large},
		{"10k parens", strings.Repeat("(", 8000) + "1" + strings.Repeat(")", 8000), large},
		{"open parens", strings.Repeat("(", 16000), large},
		{"open brackets", strings.Repeat("[", 16000), large},
		{"open braces", strings.Repeat("{", 16000), large},
		{"many nots", strings.Repeat("!", 16000) + "true", large},
		{"many minus", strings.Repeat("-", 16000) + "1", large},
		{"long chain", "event" + strings.Repeat(".a", 8000), large},
		{"long or", "true" + strings.Repeat("||1==2", 2000), large},
		{"long ternary", strings.Repeat("true?1:", 2000) + "2", large},
		{"garbage", strings.Repeat(`"`, 16000), large},
		{"nested macros", strings.Repeat("[1].all(x,", 1000) + "true" + strings.Repeat(")", 1000), large},
		{"shared lists", "[[1]" + strings.Repeat(".map(a,[a,a])", 30) + "].all(v, v == v)", large},
		{"shared lists in lists", "[[1]" + strings.Repeat(".map(a,[a,a])", 30) + "].all(v, v in [1, [v, v]])", large},
		{"nested loops", "event.data.all(a, event.data.all(b, event.data.all(c, a != 0 || b != 0 || c != 0)))", large},
		{"doubling", strings.Repeat("[", 10) + "event.data" + strings.Repeat("].map(x, x + x)[0]", 10) + " == 1", text},
		{"concatenation", "size(" + "event.data" + strings.Repeat("+event.data", 1000) + ") > 0", text},
		{"catastrophic match", `event.data.matches("(a+)+(a+)+(a|aa)+$b")`, text},
		{"wide match", `event.data.matches("(.*a.*){200}b")`, text},
		{"dynamic match", `event.data.matches("(.*a.*){" + "200}b")`, text},
	}
	c := New()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			if f, err := c.CompileFilter(r.text); err == nil {
				_, err = f.Match(r.event)
				t.Logf("filter: %.100v in %s", err, time.Since(start))
			} else {
				t.Logf("filter: %.100v in %s", err, time.Since(start))
			}
			_, err := c.CompileTemplate("{{" + r.text + "}}")
			_, jqErr := c.CompileJQ(r.text)
			t.Logf("template: %.100v, jq: %.100v", err, jqErr)
			// Bounded, not fast: the race detector on a busy machine is slow.
			if took := time.Since(start); took > 2*time.Minute {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestCostLimitFailsClosed(t *testing.T) {
	t.Parallel()
	f, err := New().CompileFilter(`event.data.all(a, event.data.all(b, a + b >= 0.0))`)
	if err != nil {
		t.Fatal(err)
	}
	e := binary(t, "application/json", []byte("["+strings.Repeat("1,", 10_000)+"1]"))
	ok, err := f.Match(e)
	if ok || err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
		t.Errorf("match = %v, %v; want an error about cost", ok, err)
	}
}
