package expr

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
)

func TestJQMembers(t *testing.T) {
	t.Parallel()
	j, err := New().CompileJQ(`[.my_attr, ."x-y", .Meta, .big_int, .huge, .no_thing]`)
	if err != nil {
		t.Fatal(err)
	}
	e := scan(t, odd)
	out, err := j.Apply(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out.Data()), `[1.5,"z",{"a":[1,{"b":null}]},9007199254740993,1e400,null]`; got != want {
		t.Errorf("result = %s\nwant     %s", got, want)
	}
	for name, want := range e.Members() {
		if got, _ := out.Member(name); string(got) != string(want) {
			t.Errorf("member %s is %s after the transform, was %s", name, got, want)
		}
	}
}

func TestJQ(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, text, want string }{
		{"field", `.data.total`, `120`},
		{"object", `{id, region, skus: [.data.items[].sku]}`, `{"id":"o-1","region":"eu","skus":["a","b"]}`},
		{"numbers keep their digits", `[.data.big, .data.huge, .data.price]`, `[9007199254740993,18446744073709551615,1.5]`},
		{"sums of big numbers", `.data.big + 1`, `9007199254740994`},
		{"typed extensions", `[.attempt, .urgent, .zip, .specversion]`, `[3,true,"01234","1.0"]`},
		{"missing is null", `.nothing`, `null`},
		{"text", `.data.note`, `"é\n"`},
		{"no html escapes", `"<&>"`, `"<&>"`},
		{"no environment", `[env, $ENV]`, `[{},{}]`},
		{"nothing filters", `select(.type == "x")`, ``},
		{"two results", `.data.items[]`, `error: run ".data.items[]": more than one result: put them into an array, as in [.data[]]`},
		{"run-time error", `.data.items.x`, `error: run ".data.items.x": expected an object but got: array ([{"n":1,"sku":"a"},{"n":2 ...])`},
		{"error", `error("no")`, `error: run "error(\"no\")": error: no`},
		{"error after a result", `1, error("no")`, `error: run "1, error(\"no\")": error: no`},
		{"halt", `halt`, `error: run "halt": halt error: null`},
	}
	c := New()
	e := scan(t, order)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			j, err := c.CompileJQ(r.text)
			if err != nil {
				t.Fatal(err)
			}
			out, err := j.Apply(t.Context(), e)
			var got string
			switch {
			case err != nil:
				got = "error: " + err.Error()
				if fault.KindOf(err) != fault.Invalid {
					t.Errorf("kind = %v, want invalid", fault.KindOf(err))
				}
			case out != nil:
				got = string(out.Data())
				if out.DataContentType() != "application/json" || out.ID() != "o-1" || out.Type() != "order.placed" {
					t.Errorf("event = %s", out.JSON())
				}
			}
			if got != r.want {
				t.Errorf("result = %s\nwant     %s", got, r.want)
			}
		})
	}
	if string(e.JSON()) != order {
		t.Errorf("the input was changed: %s", e.JSON())
	}
}

func TestJQInputForms(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, contentType, data, want string }{
		{"text", "text/plain", "a b", `["a b",null]`},
		{"bytes", "image/png", "\xff\x00", `[null,"/wA="]`},
		{"none", "", "", `[null,null]`},
	}
	j, err := New().CompileJQ(`[.data, .data_base64]`)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			data := []byte(r.data)
			if r.data == "" {
				data = nil
			}
			out, err := j.Apply(t.Context(), binary(t, r.contentType, data))
			if err != nil {
				t.Fatal(err)
			}
			if string(out.Data()) != r.want {
				t.Errorf("result = %s, want %s", out.Data(), r.want)
			}
		})
	}
}

func TestJQBombs(t *testing.T) { // not parallel: measures memory and time
	rows := []struct{ name, text, want string }{
		{"for ever", `def f: f; f`, "no result within 1s"},
		{"endless recursion", `def f: f + 1; f`, "no result within 1s"},
		{"endless array", `[limit(1000000000; repeat(1))]`, "no result within 1s"},
		{"endless results", `repeat(1)`, "more than one result"},
		{"endless search", `first(repeat(1) | select(. == 2))`, "no result within 1s"},
		{"shared values", "0 | " + strings.Repeat("[., .] | ", 60) + ".", "the result has more than 16777216 bytes"},
		{"long text", `"x" * 20000000`, "the result has more than 16777216 bytes"},
		{"deep", `reduce range(5000) as $i (0; [.])`, "the result nests deeper than 1000"},
	}
	c := New()
	e := scan(t, order)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			j, err := c.CompileJQ(r.text)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err = j.Apply(t.Context(), e)
			runtime.ReadMemStats(&after)
			t.Logf("%s, %d MB taken from the system", time.Since(start), (after.Sys-before.Sys)>>20)
			// On a busy machine the time may be over before the other bound.
			if err == nil || !strings.Contains(err.Error(), r.want) && !strings.Contains(err.Error(), "no result within 1s") {
				t.Errorf("error = %v, want %q", err, r.want)
			}
			if took := time.Since(start); took > 30*JQTimeout {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestJQStopsWithItsCaller(t *testing.T) {
	t.Parallel()
	j, err := New().CompileJQ(`def f: f; f`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = j.Apply(ctx, scan(t, order))
	if !errors.Is(err, context.Canceled) || fault.KindOf(err) == fault.Invalid {
		t.Errorf("error = %v of kind %v, want the caller's", err, fault.KindOf(err))
	}
}
