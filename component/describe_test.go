package component

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pages has one of everything that a page shows.
func pages() []Definition {
	type hose struct {
		URL   string            `meta:"url,required" alias:"host" doc:"Where to." example:"http://x"`
		Mode  string            `meta:"mode" enum:"fast|safe" default:"safe" doc:"How."`
		On    bool              `meta:"on" doc:"Whether."`
		Count int               `meta:"count" default:"3" doc:"How many."`
		Old   Ignored           `meta:"old" doc:"Not needed: we do it anyway."`
		Rest  map[string]string `meta:"*" doc:"Header."`
	}
	about := About{
		Summary: "Sends water", Ack: "The tank has it.", Limits: "1 MiB a | second.", Operations: []string{"create", "drain"},
		Example: "apiVersion: dapr.io/v1alpha1\nkind: Component\n",
	}
	open := func(context.Context, Env, hose) (Driver, error) { return nil, nil }
	bare := func(context.Context, Env, nothing) (Driver, error) { return nil, nil }
	common := []Option{{Name: "route", Type: "string", Doc: "Where events go."}}
	return []Definition{
		Define("bindings.hose", about, common, open),
		Define("bindings.drip", About{Summary: "Drips"}, nil, bare),
		Define("bindings.pump", About{Summary: "Pumps"}, nil, func(context.Context, Env, strict) (Driver, error) { return nil, nil }),
	}
}

// golden compares a text with a file of testdata; PENSTOCK_UPDATE=1 writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	file = "testdata/" + file
	if os.Getenv("PENSTOCK_UPDATE") == "1" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", file, diff)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	golden(t, "describe.txt", Describe(pages()[0]))
	golden(t, "describe-bare.txt", Describe(pages()[1]))
	golden(t, "page.md", Markdown(pages()[0]))
	schema, err := Schema(pages())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "schema.json", string(schema))
	turned := pages()
	slices.Reverse(turned)
	if again, _ := Schema(turned); string(again) != string(schema) {
		t.Error("the order of definitions shows")
	}
}

func TestSchemaJudges(t *testing.T) {
	t.Parallel()
	data, err := Schema(pages())
	if err != nil {
		t.Fatal(err)
	}
	var root object
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	component := func(typ, metadata string) string {
		return `{"apiVersion":"dapr.io/v1alpha1","kind":"Component","metadata":{"name":"a"},"spec":{"type":"` + typ + `","metadata":[` + metadata + `]}}`
	}
	pipeline := func(spec string) string {
		return `{"apiVersion":"penstock.dev/v1","kind":"Pipeline","metadata":{"name":"a"},"spec":{` + spec + `}}`
	}
	ends := `"from":{"binding":"github"},"to":[{"app":"/x"},{"pubsub":{"name":"bus","topic":"t"}}]`
	for name, tc := range map[string]struct {
		doc  string
		want bool
	}{
		"component":            {component("bindings.pump", `{"name":"low","value":3},{"name":"token","secretKeyRef":{"name":"s"}}`), true},
		"alias":                {component("bindings.hose", `{"name":"host","value":"h"}`), true},
		"any name":             {component("bindings.hose", `{"name":"url","value":"u"},{"name":"x-header","value":"h"}`), true},
		"common option":        {component("bindings.hose", `{"name":"url","value":"u"},{"name":"route","value":"/x"}`), true},
		"no options":           {component("bindings.drip", ``), true},
		"unknown option":       {component("bindings.pump", `{"name":"lwo","value":3}`), false},
		"option of none":       {component("bindings.drip", `{"name":"x","value":3}`), false},
		"missing option":       {component("bindings.hose", `{"name":"mode","value":"fast"}`), false},
		"wrong word":           {component("bindings.hose", `{"name":"url","value":"u"},{"name":"mode","value":"slow"}`), false},
		"wrong type":           {component("bindings.hose", `{"name":"url","value":"u"},{"name":"count","value":true}`), false},
		"two values":           {component("bindings.pump", `{"name":"low","value":3,"envRef":"X"}`), false},
		"unknown component":    {component("bindings.pmup", ``), false},
		"bad name":             {strings.Replace(component("bindings.drip", ``), `"name":"a"`, `"name":"../a"`, 1), false},
		"subscription":         {`{"apiVersion":"dapr.io/v2alpha1","kind":"Subscription","metadata":{"name":"a"},"spec":{"pubsubname":"bus","topic":"t","routes":{"default":"/x"}}}`, true},
		"old subscription":     {`{"apiVersion":"dapr.io/v1alpha1","kind":"Subscription","metadata":{"name":"a"},"spec":{"pubsubname":"bus","topic":"t","route":"/x"}}`, true},
		"mixed versions":       {`{"apiVersion":"dapr.io/v1alpha1","kind":"Subscription","metadata":{"name":"a"},"spec":{"pubsubname":"bus","topic":"t","routes":{"default":"/x"}}}`, false},
		"configuration":        {`{"apiVersion":"dapr.io/v1alpha1","kind":"Configuration","metadata":{"name":"a"},"spec":{"tracing":{},"components":{"deny":["x"]}}}`, true},
		"pipeline":             {pipeline(ends + `,"steps":[{"filter":"true"},{"transform":{"jq":"."}},{"set":{"type":"'a'"}}],"deadLetter":{"pubsub":"bus","topic":"t"},"retry":{"maxRetries":-1}`), true},
		"pipeline to none":     {pipeline(`"from":{"binding":"github"},"to":[]`), false},
		"pipeline from app":    {pipeline(`"from":{"app":"/x"},"to":[{"app":"/x"}]`), false},
		"two in a step":        {pipeline(ends + `,"steps":[{"filter":"true","set":{"type":"'a'"}}]`), false},
		"pipeline field":       {pipeline(ends + `,"orderingkey":"x"`), false},
		"other kind":           {`{"apiVersion":"dapr.io/v1alpha1","kind":"HTTPEndpoint","metadata":{"name":"a"},"spec":{}}`, false},
		"resiliency":           {`{"apiVersion":"dapr.io/v1alpha1","kind":"Resiliency","metadata":{"name":"a"},"spec":{"policies":{"timeouts":{"t":500},"retries":{"r":{"policy":"constant","matching":{"httpStatusCodes":"429"}}}},"targets":{"components":{"bus":{"retry":"r","inbound":{"timeout":"t"}}}}}}`, true},
		"resiliency, misspelt": {`{"apiVersion":"dapr.io/v1alpha1","kind":"Resiliency","metadata":{"name":"a"},"spec":{"policies":{"retry":{}}}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var doc any
			if err := json.Unmarshal([]byte(tc.doc), &doc); err != nil {
				t.Fatal(err)
			}
			if got := (judge{t, root}).fits(doc, root); got != tc.want {
				t.Errorf("fits is %v", got)
			}
		})
	}
}

// judge knows the few words of JSON Schema that the schema uses and fails the
// test for any other.
type judge struct {
	t    *testing.T
	root object
}

func (j judge) fits(v any, schema object) bool {
	for word, arg := range schema {
		if !j.holds(word, arg, v, schema) {
			return false
		}
	}
	return true
}

func (j judge) count(v any, schemas any) (n int) {
	for _, s := range schemas.([]any) {
		if j.fits(v, s.(object)) {
			n++
		}
	}
	return n
}

func (j judge) holds(word string, arg, v any, schema object) bool {
	switch word {
	case "$schema", "$id", "title", "$defs", "description", "default", "examples", "then":
		return true
	case "$ref":
		name := strings.TrimPrefix(arg.(string), "#/$defs/")
		s, ok := j.root["$defs"].(object)[name].(object)
		if !ok {
			j.t.Errorf("no definition %q", name)
		}
		return j.fits(v, s)
	case "const":
		return v == arg
	case "enum":
		return slices.Contains(arg.([]any), v)
	case "not":
		return !j.fits(v, arg.(object))
	case "oneOf":
		return j.count(v, arg) == 1
	case "anyOf":
		return j.count(v, arg) > 0
	case "allOf":
		return j.count(v, arg) == len(arg.([]any))
	case "if":
		return !j.fits(v, arg.(object)) || j.fits(v, schema["then"].(object))
	case "type":
		if one, ok := arg.(string); ok {
			return isType(v, one)
		}
		return slices.ContainsFunc(arg.([]any), func(one any) bool { return isType(v, one.(string)) })
	}
	switch v := v.(type) {
	case object:
		return j.holdsObject(word, arg, v, schema)
	case []any:
		return j.holdsList(word, arg, v)
	case string:
		return word != "pattern" && word != "minLength" || word == "pattern" && regexp.MustCompile(arg.(string)).MatchString(v) || word == "minLength" && len(v) >= int(arg.(float64))
	case float64:
		return (word != "minimum" || v >= arg.(float64)) && (word != "maximum" || v <= arg.(float64))
	}
	return true
}

func (j judge) holdsObject(word string, arg any, v, schema object) bool {
	switch word {
	case "required":
		return !slices.ContainsFunc(arg.([]any), func(name any) bool { _, ok := v[name.(string)]; return !ok })
	case "minProperties":
		return len(v) >= int(arg.(float64))
	case "properties":
		for name, s := range arg.(object) {
			if value, ok := v[name]; ok && !j.fits(value, s.(object)) {
				return false
			}
		}
	case "propertyNames":
		for name := range v {
			if !j.fits(name, arg.(object)) {
				return false
			}
		}
	case "additionalProperties":
		known, _ := schema["properties"].(object)
		for name, value := range v {
			if _, ok := known[name]; ok {
				continue
			}
			if s, ok := arg.(object); !ok || !j.fits(value, s) {
				return false
			}
		}
	case "minLength", "pattern", "items", "contains", "minItems", "maxItems", "minimum", "maximum": // of other types
	default:
		j.t.Errorf("word %q is not known", word)
	}
	return true
}

func (j judge) holdsList(word string, arg any, v []any) bool {
	switch word {
	case "items":
		return !slices.ContainsFunc(v, func(one any) bool { return !j.fits(one, arg.(object)) })
	case "contains":
		return slices.ContainsFunc(v, func(one any) bool { return j.fits(one, arg.(object)) })
	case "minItems":
		return len(v) >= int(arg.(float64))
	case "maxItems":
		return len(v) <= int(arg.(float64))
	}
	return true
}

func isType(v any, name string) bool {
	switch v := v.(type) {
	case object:
		return name == "object"
	case []any:
		return name == "array"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && v == float64(int64(v))
	}
	return name == "null"
}
