package component

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// every has one option of each type.
type every struct {
	URL     string            `meta:"url,required" alias:"address,host" doc:"Where to." example:"http://x"`
	Mode    string            `meta:"mode" enum:"fast|safe" default:"safe" doc:"How."`
	On      bool              `meta:"on" default:"true" doc:"Whether."`
	Count   int               `meta:"count" default:"-1" doc:"How many."`
	Total   int64             `meta:"total" doc:"How many in all."`
	Ratio   float64           `meta:"ratio" doc:"How much."`
	Wait    time.Duration     `meta:"wait" default:"5s" doc:"How long." example:"10s"`
	Linger  time.Duration     `meta:"linger" default:"-1s" doc:"How long, or never."`
	Max     Size              `meta:"max" default:"4Mi" doc:"How big."`
	Token   Secret            `meta:"token" doc:"Credential."`
	Hosts   []string          `meta:"hosts" doc:"Which."`
	Levels  []string          `meta:"levels" enum:"a|b|c" doc:"Which levels."`
	Old     Ignored           `meta:"old" doc:"Not needed: we do it anyway."`
	Nothing map[string]string `meta:"*" doc:"The rest."`
}

// strict has no rest and a Check.
type strict struct {
	Low   int    `meta:"low" default:"1" doc:"Least."`
	High  int    `meta:"high" default:"10" doc:"Most."`
	Token Secret `meta:"token" doc:"Credential."`
}

// begun takes names by their beginning.
type begun struct {
	Name    string            `meta:"name" doc:"Name."`
	Headers map[string]string `meta:"header:*" doc:"Headers."`
	Meta    map[string]string `meta:"meta.*" doc:"More."`
}

func TestNamesByTheirBeginning(t *testing.T) {
	t.Parallel()
	got, problems := Decode[begun]("x", []config.Item{
		item(1, "header:X-Key", "a"), item(2, "Header:b", ""), item(3, "name", "n"), item(4, "header:", "x"), item(5, "headers", "x"),
		item(6, "Meta.a.b", "c"),
	}, nil)
	want := begun{"n", map[string]string{"header:X-Key": "a", "Header:b": ""}, map[string]string{"Meta.a.b": "c"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(problems) != 2 || !problems[0].Lenient || !problems[1].Lenient {
		t.Errorf("problems %v, want one for the name without an end and one for headers", problems)
	}
}

func (s strict) Check() error {
	var errs []error
	if s.Low > s.High {
		errs = append(errs, OptionErrorf("low", "%d is more than high, which is %d", s.Low, s.High))
	}
	if strings.HasPrefix(s.Token.Reveal(), "bad") {
		errs = append(errs, OptionErrorf("TOKEN", "%q will not do", s.Token.Reveal()))
	}
	if s.High == 666 {
		errs = append(errs, errors.New("that number is taken"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

// item makes an item that stands on the given line.
func item(line int, name, value string) config.Item {
	return config.Item{
		Name: name, Value: value,
		NamePlace: config.Place{File: "a.yaml", Line: line, Column: 1},
		Place:     config.Place{File: "a.yaml", Line: line, Column: 9},
	}
}

func items(pairs ...string) (list []config.Item) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, item(i/2+1, pairs[i], pairs[i+1]))
	}
	return list
}

var shared = []Option{{Name: "route", Type: "string"}, {Name: "limit", Type: "int"}}

func TestDecodeValues(t *testing.T) {
	t.Parallel()
	defaults := every{URL: "u", Mode: "safe", On: true, Count: -1, Wait: 5 * time.Second, Linger: -time.Second, Max: 4 << 20}
	with := func(change func(*every)) every { o := defaults; change(&o); return o }
	for name, tc := range map[string]struct {
		in   []config.Item
		want every
	}{
		"defaults":          {items("url", "u"), defaults},
		"case of names":     {items("URL", "u", "MODE", "FAST"), with(func(o *every) { o.Mode = "fast" })},
		"alias":             {items("Address", "u"), defaults},
		"empty is absent":   {items("url", "u", "wait", "", "on", "", "mode", ""), defaults},
		"dapr truth":        {items("url", "u", "on", "Off"), with(func(o *every) { o.On = false })},
		"bare seconds":      {items("url", "u", "wait", "90"), with(func(o *every) { o.Wait = 90 * time.Second })},
		"negative duration": {items("url", "u", "linger", "-5m"), with(func(o *every) { o.Linger = -5 * time.Minute })},
		"size":              {items("url", "u", "max", "64Ki"), with(func(o *every) { o.Max = 65536 })},
		"numbers": {
			items("url", "u", "count", "-7", "total", "9000000000", "ratio", "0.25"),
			with(func(o *every) { o.Count, o.Total, o.Ratio = -7, 9e9, 0.25 }),
		},
		"secret":  {items("url", "u", "token", "hush"), with(func(o *every) { o.Token = NewSecret("hush") })},
		"list":    {items("url", "u", "hosts", " a, b ,,c"), with(func(o *every) { o.Hosts = []string{"a", "b", "c"} })},
		"enums":   {items("url", "u", "levels", "B,c"), with(func(o *every) { o.Levels = []string{"b", "c"} })},
		"ignored": {items("url", "u", "old", "whatever"), defaults},
		"rest": {
			items("url", "u", "Other", "x", "route", "/r"),
			with(func(o *every) { o.Nothing = map[string]string{"Other": "x"} }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got every
			if ps := decode("bindings.x", tc.in, shared, &got); len(ps) > 0 {
				t.Fatal(ps)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(Secret{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// wrong is a list of items and the problems they make.
type wrong struct {
	in     []config.Item
	strict bool // decode into strict, else into every
	want   []string
}

func (w wrong) test(t *testing.T) {
	t.Parallel()
	var ps config.Problems
	if w.strict {
		ps = decode("bindings.x", w.in, shared, &strict{})
	} else {
		ps = decode("bindings.x", w.in, shared, &every{})
	}
	if diff := cmp.Diff(w.want, texts(ps)); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeProblems(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]wrong{
		"missing":         {items("mode", "fast"), false, []string{`bindings.x needs option "url"; for example http://x`}},
		"empty":           {items("url", ""), false, []string{`a.yaml:1:9: option "url" of bindings.x is empty; for example http://x`}},
		"unknown":         {items("hihg", "3"), true, []string{`a.yaml:1:1: bindings.x has no option "hihg"; did you mean "high"? (lenient)`}},
		"unknown, common": {items("rote", "3"), true, []string{`a.yaml:1:1: bindings.x has no option "rote"; did you mean "route"? (lenient)`}},
		"unknown, far":    {items("colour", "3"), true, []string{`a.yaml:1:1: bindings.x has no option "colour"; known: route, limit, low, high, token (lenient)`}},
		"twice":           {items("low", "1", "LOW", "2"), true, []string{`a.yaml:2:1: options "low" and "LOW" are the same; the first is on line 1; keep one of them`}},
		"unknown twice":   {items("url", "u", "z", "1", "z", "2"), false, []string{`a.yaml:3:1: option "z" is given twice; the first is on line 2; keep one of them`}},
		"alias twice":     {items("url", "u", "host", "v"), false, []string{`a.yaml:2:1: options "url" and "host" are the same; the first is on line 1; keep one of them`}},
		"bool":            {items("url", "u", "on", "maybe"), false, []string{`a.yaml:2:9: option "on" is "maybe", want true or false`}},
		"int":             {items("low", "1.5"), true, []string{`a.yaml:1:9: option "low" is "1.5", want a whole number`}},
		"int range":       {items("low", "99999999999999999999"), true, []string{`a.yaml:1:9: option "low" is "99999999999999999999", want a whole number`}},
		"number":          {items("url", "u", "ratio", "NaN"), false, []string{`a.yaml:2:9: option "ratio" is "NaN", want a number`}},
		"duration":        {items("url", "u", "wait", "5 apples"), false, []string{`a.yaml:2:9: option "wait" is "5 apples", want a duration such as 1m30s, or a number of seconds; for example 10s`}},
		"negative":        {items("url", "u", "wait", "-1s"), false, []string{`a.yaml:2:9: option "wait" is "-1s", want a duration that is not negative; for example 10s`}},
		"size":            {items("url", "u", "max", "4 barrels"), false, []string{`a.yaml:2:9: option "max" is "4 barrels", want a number of bytes such as 1000, 64Ki or 4Mi`}},
		"negative size":   {items("url", "u", "max", "-4"), false, []string{`a.yaml:2:9: option "max" is "-4", want a size that is not negative`}},
		"enum":            {items("url", "u", "mode", "fst"), false, []string{`a.yaml:2:9: option "mode" is "fst", want fast or safe; did you mean "fast"?`}},
		"enum list":       {items("url", "u", "levels", "a,q"), false, []string{`a.yaml:2:9: option "levels" is "a,q", want a list of a, b or c`}},
		"common value":    {items("limit", "many"), true, []string{`a.yaml:1:9: option "limit" is "many", want a whole number`}},
	} {
		t.Run(name, tc.test)
	}
}

func TestDecodeChecks(t *testing.T) {
	t.Parallel()
	secret := func(name, value string) config.Item {
		it := item(1, name, value)
		it.Secret = true
		return it
	}
	ref := config.Item{Name: "low", SecretRef: &config.SecretRef{Name: "s", Key: "k"}}
	for name, tc := range map[string]wrong{
		"secret value":  {[]config.Item{secret("low", "hush")}, true, []string{`a.yaml:1:9: option "low" is ***, want a whole number`}},
		"check":         {items("high", "5", "low", "7"), true, []string{`a.yaml:2:9: option "low": 7 is more than high, which is 5`}},
		"check, absent": {items("high", "0"), true, []string{`option "low": 1 is more than high, which is 0`}},
		"check hides":   {items("token", "bad-pa\"ss"), true, []string{`a.yaml:1:9: option "TOKEN": *** will not do`}},
		"check hides short": {
			[]config.Item{secret("token", "bad")},
			true,
			[]string{`a.yaml:1:9: option "TOKEN": *** will not do`},
		},
		"check, several": {items("high", "666", "token", "bad word", "other", "1"), true, []string{
			`a.yaml:3:1: bindings.x has no option "other"; known: route, limit, low, high, token (lenient)`,
			`a.yaml:2:9: option "TOKEN": *** will not do`, `that number is taken`,
		}},
		"all at once": {items("low", "x", "high", "y"), true, []string{
			`a.yaml:1:9: option "low" is "x", want a whole number`, `a.yaml:2:9: option "high" is "y", want a whole number`,
		}},
		"reference":          {append([]config.Item{ref}, items("high", "0")...), true, nil},
		"required reference": {[]config.Item{{Name: "url", SecretRef: &config.SecretRef{Name: "s"}}}, false, nil},
	} {
		t.Run(name, tc.test)
	}
}

// TestDecodeHidesSourceLines holds that a message does not show the line of the
// file when a secret stands on it.
func TestDecodeHidesSourceLines(t *testing.T) {
	t.Parallel()
	in := items("token", "bad word", "token", "other secret", "colour", "red", "low", "x")
	for i := range in {
		in[i].Place.Text = in[i].Name + ": " + in[i].Value
		in[i].NamePlace.Text = in[i].Place.Text
	}
	for _, list := range [][]config.Item{in, in[:1]} {
		ps := decode("bindings.x", list, nil, &strict{})
		if text := ps.Error(); len(ps) == 0 || strings.Contains(text, "bad word") || strings.Contains(text, "other secret") {
			t.Error(text)
		}
		if len(list) > 1 && !strings.Contains(ps.Error(), "colour: red") {
			t.Error("a line without a secret is not shown")
		}
	}
}

func texts(ps config.Problems) (list []string) {
	for _, p := range ps {
		s := p.String()
		if p.Lenient {
			s += " (lenient)"
		}
		list = append(list, s)
	}
	return list
}

func TestDecodeLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	type common struct {
		Limit int `meta:"limit" default:"3" doc:"Most."`
	}
	got, ps := Decode[common]("bindings.x", items("low", "not a number", "low", "2", "limit", "5", "limt", "4"), OptionsOf(strict{}))
	want := []string{`a.yaml:4:1: bindings.x has no option "limt"; did you mean "limit"? (lenient)`}
	if diff := cmp.Diff(want, texts(ps)); diff != "" {
		t.Error(diff)
	}
	if got.Limit != 5 {
		t.Errorf("limit is %d", got.Limit)
	}
}

func TestDefinition(t *testing.T) {
	t.Parallel()
	var opened strict
	def := Define("bindings.x", About{}, shared, func(_ context.Context, _ Env, o strict) (Driver, error) {
		opened = o
		return nil, nil
	})
	if ps := def.Check(items("low", "2", "strange", "1")); len(ps) != 1 || !ps[0].Lenient {
		t.Error(ps)
	}
	if _, err := def.Open(t.Context(), Env{}, items("low", "2", "strange", "1")); err != nil || opened.Low != 2 {
		t.Error(err, opened)
	}
	for name, bad := range map[string][]config.Item{
		"wrong value":   items("low", "x"),
		"not fetched":   {{Name: "low", SecretRef: &config.SecretRef{Name: "s"}}},
		"env not there": {{Name: "low", EnvRef: "X"}},
	} {
		_, err := def.Open(t.Context(), Env{}, bad)
		if _, ok := errors.AsType[config.Problems](err); !ok || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOptionsOfPanics(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]any{
		"not a struct": 1,
		"no tag":       struct{ A string }{},
		"no doc": struct {
			A string `meta:"a"`
		}{},
		"type": struct {
			A chan int `meta:"a" doc:"A."`
		}{},
		"default": struct {
			A int `meta:"a" doc:"A." default:"x"`
		}{},
		"default not in enum": struct {
			A string `meta:"a" doc:"A." default:"x" enum:"y|z"`
		}{},
		"unexported": struct {
			a string `meta:"a" doc:"A."`
		}{},
		"required default": struct {
			A string `meta:"a,required" doc:"A." default:"x"`
		}{},
		"rest is a string": struct {
			A string `meta:"*" doc:"A."`
		}{},
		"twice": struct {
			A string `meta:"a" doc:"A."`
			B string `meta:"b" alias:"A" doc:"B."`
		}{},
		"flag": struct {
			A string `meta:"a,requird" doc:"A."`
		}{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			OptionsOf(o)
		})
	}
}

func TestDecodeCommonRequired(t *testing.T) {
	t.Parallel()
	common := []Option{{Name: "route", Type: "string", Required: true}}
	ps := decode("bindings.x", nil, common, &strict{})
	if diff := cmp.Diff([]string{`bindings.x needs option "route"; set it to a text`}, texts(ps)); diff != "" {
		t.Error(diff)
	}
	if _, ps := Decode[strict]("bindings.x", nil, common); len(ps) > 0 {
		t.Error(ps)
	}
}

func TestUnneeded(t *testing.T) {
	t.Parallel()
	def := Define("bindings.x", About{}, nil, func(context.Context, Env, every) (Driver, error) { return nil, nil })
	got := def.Unneeded(items("OLD", "1", "url", "u"))
	if diff := cmp.Diff(map[string]string{"old": "Not needed: we do it anyway."}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range []string{"", "1", "-1s", "64Ki", "yes", "a,b", "bad \"word\"", "\xff", "9e999"} {
		f.Add("low", v)
		f.Add("wait", v)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		const mark = "S3CR-"
		hidden := item(1, name, mark+value)
		hidden.Secret = true
		hidden.Place.Text = name + ": " + mark + value
		plain := items("url", value, "mode", value, "on", value, "count", value, "ratio", value, "wait", value, "max", value, "levels", value, name, value)
		token := items("token", "bad "+mark+value, "low", "2", name, value)
		for _, in := range [][]config.Item{append(plain, hidden), append(token, hidden)} {
			for _, ps := range []config.Problems{decode("bindings.x", in, shared, &every{}), decode("bindings.x", in, shared, &strict{})} {
				if !strings.Contains(name, mark) && !strings.Contains(value, mark) && strings.Contains(ps.Error(), mark) {
					t.Errorf("a secret is shown: %s", ps.Error())
				}
			}
		}
	})
}

// Place has options that several components embed.
type Place struct {
	Host  string `meta:"host,required" doc:"Where."`
	Token Secret `meta:"token" doc:"Credential."`
}

func (s Place) Check() error {
	if s.Host == "nowhere" {
		return OptionErrorf("host", "is no place")
	}
	return nil
}

func TestEmbeddedOptions(t *testing.T) {
	t.Parallel()
	type options struct {
		Place
		Depth int `meta:"depth" default:"3" doc:"How deep."`
	}
	var o options
	if ps := decode("kind.x", []config.Item{item(1, "host", "h"), item(2, "token", "s")}, nil, &o); len(ps) > 0 {
		t.Fatal(ps)
	}
	if o.Host != "h" || o.Token.Reveal() != "s" || o.Depth != 3 {
		t.Errorf("decoded %+v", o)
	}
	for _, value := range []string{"", "nowhere"} {
		items := []config.Item{item(1, "host", value)}
		if value == "" {
			items = nil
		}
		if ps := decode("kind.x", items, nil, new(options)); !strings.Contains(ps.Error(), "host") {
			t.Errorf("host %q: %v, want a problem that names it", value, ps)
		}
	}
}
