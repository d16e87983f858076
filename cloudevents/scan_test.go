package cloudevents_test

import (
	"bytes"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// wantInvalid fails the test unless err is fault.Invalid and says text.
func wantInvalid(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", text)
	}
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("kind of %v is %v, want invalid", err, fault.KindOf(err))
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want %q in it", err, text)
	}
}

// refusal is a text that Scan refuses, and why.
type refusal struct{ name, text, want string }

func refuses(t *testing.T, tests []refusal) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := cloudevents.Scan([]byte(tt.text))
			wantInvalid(t, err, tt.want)
		})
	}
}

// with returns an event that has the member beside the required ones.
func with(member string) string { return `{` + required + `,` + member + `}` }

func TestScanRefusesSyntax(t *testing.T) {
	t.Parallel()
	refuses(t, []refusal{
		{"empty", ``, "scan event: byte 0: the text ends too early"},
		{"spaces", " \n", "byte 2: the text ends too early"},
		{"array", `[]`, "byte 0: expected an object"},
		{"byte order mark", "\ufeff{}", "byte 0: expected an object"},
		{"empty object", `{}`, `attribute "specversion" is missing`},
		{"no end", `{` + required, "byte 54: the text ends too early"},
		{"something follows", `{` + required + `} x`, "byte 56: something follows the end"},
		{"trailing comma", `{` + required + `,}`, "byte 55: expected an attribute name in quotes"},
		{"no comma", `{` + required + ` "a":1}`, "byte 55: expected , or } in the event"},
		{"no colon", with(`"a" 1`), "byte 59: expected : after a key"},
		{"not UTF-8", with("\"a\":\"\xff\""), "byte 60: not UTF-8"},
		{"control character", with("\"a\":\"\n\""), `byte 60: attribute "a": control character in a string`},
		{"bad escape", with(`"a":"\x"`), `byte 60: attribute "a": unknown escape in a string`},
		{"short escape", with(`"a":"\u12"`), `byte 60: attribute "a": unknown escape in a string`},
		{"open string", with(`"a":"b`), `byte 59: attribute "a": the string has no end`},
		{"bad literal", with(`"a":trve`), `byte 59: attribute "a": expected true`},
		{"bad number", with(`"a":01`), `byte 59: attribute "a": not a number`},
		{"plus sign", with(`"a":+1`), `byte 59: attribute "a": expected a value`},
		{"no digit after point", with(`"data":1.`), "byte 62: not a number"},
		{"no digit in exponent", with(`"data":1e+`), "byte 62: not a number"},
		{"only a minus", with(`"data":-`), "byte 62: not a number"},
	})
}

func TestScanRefusesMissing(t *testing.T) {
	t.Parallel()
	refuses(t, []refusal{
		{"no id", `{"specversion":"1.0","source":"/s","type":"t"}`, `attribute "id" is missing`},
		{"no source", `{"specversion":"1.0","id":"1","type":"t"}`, `attribute "source" is missing`},
		{"no type", `{"specversion":"1.0","id":"1","source":"/s"}`, `attribute "type" is missing`},
		{"no specversion", `{"id":"1","source":"/s","type":"t"}`, `attribute "specversion" is missing`},
		{"null id", `{"specversion":"1.0","id":null,"source":"/s","type":"t"}`, `attribute "id" is missing`},
		{"blank type", `{"specversion":"1.0","id":"1","source":"/s","type":" "}`, `byte 51: attribute "type" is blank`},
		{"specversion 9", `{"specversion":"9","id":"1","source":"/s","type":"t"}`, `byte 15: attribute "specversion": "9" is not supported, must be "1.0"`},
		{"specversion 0.3", `{"specversion":"0.3","id":"1","source":"/s","type":"t"}`, `must be "1.0"`},
		{"specversion number", `{"specversion":1.0,"id":"1","source":"/s","type":"t"}`, `byte 15: attribute "specversion": must be a string`},
		{"id number", `{"specversion":"1.0","id":1}`, `byte 26: attribute "id": must be a string`},
		{"subject true", with(`"subject":true`), `attribute "subject": must be a string`},
	})
}

func TestScanRefusesDuplicates(t *testing.T) {
	t.Parallel()
	refuses(t, []refusal{
		{"id twice", with(`"id":"2"`), `byte 55: attribute "id" is there twice`},
		{"id twice, escaped", with(`"\u0069d":"2"`), `attribute "id" is there twice`},
		{"extension twice", with(`"a":1,"a":1`), `byte 61: attribute "a" is there twice`},
		{"extension twice by case", with(`"aB":1,"Ab":null`), `attribute "ab" is there twice`},
		{"ID", with(`"ID":"2"`), `byte 55: attribute "ID" must be written "id"`},
		{"Data", with(`"Data":1`), `attribute "Data" must be written "data"`},
		{"data twice", with(`"data":1,"data":1`), "byte 64: data is there twice"},
		{"member twice", with(`"x-y":1,"x-y":2`), `byte 63: attribute "x-y" is there twice`},
		{"member twice, escaped", with(`"x-y":1,"x\u002dy":2`), `attribute "x-y" is there twice`},
		{"attribute and member", with(`"a":1,"a":{}`), `attribute "a" is there twice`},
		{"member and attribute", with(`"a":{},"a":1`), `attribute "a" is there twice`},
		{"attribute and member in upper case", with(`"aB":1,"aB":{}`), `attribute "aB" is there twice`},
		{"member and attribute in upper case", with(`"aB":{},"aB":1`), `attribute "ab" is there twice`},
		{"null data twice", with(`"data":null,"data":1`), "data is there twice"},
		{"data_base64 twice", with(`"data_base64":null,"data_base64":""`), "data_base64 is there twice"},
		{"both data", with(`"data":1,"data_base64":""`), "byte 64: data and data_base64 exclude each other"},
		{"both data, other order", with(`"data_base64":"","data":1`), "data and data_base64 exclude each other"},
	})
}

func TestScanRefusesAttributes(t *testing.T) {
	t.Parallel()
	refuses(t, []refusal{
		{"object id", with(`"id":{}`), `attribute "id": must be a string`},
		{"array time", with(`"time":[1]`), `byte 62: attribute "time": must be a string`},
		{"fraction of subject", with(`"subject":1.5`), `attribute "subject": must be a string`},
		{"object specversion", `{"specversion":{}}`, `attribute "specversion": must be a string`},
		{"upper case and object", with(`"Subject":{}`), `attribute "Subject" must be written "subject"`},
		{"upper case of data_base64", with(`"Data_Base64":{}`), `must be written "data_base64"`},
		{"long name", with(`"` + strings.Repeat("a", 257) + `":1`), "the name is longer than 256 bytes"},
		{"open object", with(`"a":{"b":1]}`), `byte 65: attribute "a": expected , or } in an object`},
		{"bad number in a list", with(`"x-y":[01]`), `attribute "x-y": not a number`},
		{"bad literal", with(`"x_y":nul`), `attribute "x_y": expected null`},
		{"long object", with(`"a":["` + strings.Repeat("a", 1<<16) + `"]`), `attribute "a": longer than 65536 bytes`},
		{"1 MB id", `{"id":"` + strings.Repeat("a", 1<<20) + `"}`, `attribute "id": longer than 65536 bytes`},
		{"half a pair", with(`"subject":"\ud800"`), `attribute "subject": must be a string without half a surrogate pair`},
		{"half a pair, low", with(`"time":"x\uDC00"`), "half a surrogate pair"},
		{"two first halves", with(`"time":"\ud800\ud800"`), "half a surrogate pair"},
		{"half a pair in name", with(`"\ud800":1`), "half a surrogate pair"},
		{"base64 of number", with(`"data_base64":1`), "data_base64 must be a string"},
		{"base64 unpadded", with(`"data_base64":"YQ"`), "data_base64 is not base64"},
		{"base64 alphabet", with(`"data_base64":"YQ_="`), "data_base64 is not base64"},
		{"base64 padding inside", with(`"data_base64":"YQ==YQ=="`), "data_base64 is not base64"},
		{"base64 all padding", with(`"data_base64":"==="`), "data_base64 is not base64"},
	})
}

func TestScanRefusesData(t *testing.T) {
	t.Parallel()
	refuses(t, []refusal{
		{"unclosed array in data", with(`"data":[1}`), "byte 64: expected , or ] in an array"},
		{"unclosed object in data", with(`"data":{"a":1]}`), "byte 68: expected , or } in an object"},
		{"bare key in data", with(`"data":{a:1}`), "byte 63: expected a key in quotes"},
		{"trailing comma in data", with(`"data":[1,]`), "byte 65: expected a value"},
	})
}

func TestScanAccepts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, member string
		attrs        map[string]string // beside the required
		data         string            // "-" for none
	}{
		{"no data", `"a":"b"`, map[string]string{"a": "b"}, "-"},
		{"what Dapr adds", `"topic":"t","pubsubname":"p","traceid":"","traceparent":"x","tracestate":"","expiration":"y"`, map[string]string{
			"topic": "t", "pubsubname": "p", "traceid": "", "traceparent": "x", "tracestate": "", "expiration": "y",
		}, "-"},
		{"traceparent number", `"traceparent":123`, map[string]string{"traceparent": "123"}, "-"},
		{"upper-case extension", `"myExt":"v"`, map[string]string{"myext": "v"}, "-"},
		{"escaped name and value", `"\u0061b":"\u0063\n\ud83d\ude00\/"`, map[string]string{"ab": "c\n😀/"}, "-"},
		{"NUL in value", `"a":"\u0000"`, map[string]string{"a": "\x00"}, "-"},
		{"numbers", `"a":12345678901234567890,"b":-0,"c":1.0,"d":2E2`, map[string]string{"a": "12345678901234567890", "b": "0", "c": "1", "d": "200"}, "-"},
		{"booleans and null", `"a":true,"b":false,"c":null`, map[string]string{"a": "true", "b": "false"}, "-"},
		{"data verbatim", `"data": {"z" : 1.50,"a":[1e400, -0.0,"\u00e9"],"z":2} `, nil, `{"z" : 1.50,"a":[1e400, -0.0,"\u00e9"],"z":2}`},
		{"half a pair in data", `"data":"\ud800"`, nil, `"\ud800"`},
		{"data null", `"data":null`, nil, `null`},
		{"data null of text", `"datacontenttype":"text/plain","data":null`, map[string]string{"datacontenttype": "text/plain"}, "-"},
		{"text", `"data":"a\n\u00e9","datacontenttype":"text/plain"`, map[string]string{"datacontenttype": "text/plain"}, "a\né"},
		{"text without escapes", `"data":"","datacontenttype":"text/plain"`, map[string]string{"datacontenttype": "text/plain"}, ""},
		{"text with half a pair", `"data":"a\ud800b\uDC00","datacontenttype":"text/plain"`, map[string]string{"datacontenttype": "text/plain"}, "a\ufffdb\ufffd"},
		{"object of text", `"data":{"a":1},"datacontenttype":"text/plain"`, map[string]string{"datacontenttype": "text/plain"}, `{"a":1}`},
		{"json suffix", `"data":"x","datacontenttype":"A/B+JSON ; q=1"`, map[string]string{"datacontenttype": "A/B+JSON ; q=1"}, `"x"`},
		{"base64", `"data_base64":"\/+8="`, nil, "\xff\xef"},
		{"base64 with line breaks", `"data_base64":"YW\r\nJj"`, nil, "abc"},
		{"base64 empty", `"data_base64":""`, nil, ""},
		{"base64 and null", `"data":null,"data_base64":"YQ=="`, nil, "a"},
		{"null and base64", `"data_base64":"YQ==","data":null`, nil, "a"},
		{"null base64 and data", `"data_base64":null,"data":1`, nil, "1"},
		{"longest name", `"` + strings.Repeat("z", 64) + `":""`, map[string]string{strings.Repeat("z", 64): ""}, "-"},
		{"deepest", `"data":` + strings.Repeat("[", 63) + strings.Repeat("]", 63), nil, strings.Repeat("[", 63) + strings.Repeat("]", 63)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "{" + required + " ,\t" + tt.member + "\r\n}"
			e := mustScan(t, text)
			want := map[string]string{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
			maps.Copy(want, tt.attrs)
			if diff := cmp.Diff(want, attrsOf(e)); diff != "" {
				t.Errorf("attributes differ (-want +got):\n%s", diff)
			}
			data := "-"
			if e.Data() != nil {
				data = string(e.Data())
			}
			if data != tt.data {
				t.Errorf("Data() = %q, want %q", data, tt.data)
			}
			if string(e.JSON()) != text || string(e.AppendJSON([]byte("x"))) != "x"+text {
				t.Errorf("JSON() is not what was read")
			}
		})
	}
}

// TestScanBounds feeds what grows where readers are careless. All of it must be
// refused, or taken, in time linear to its size: were it the square, a million
// steps would take many minutes, so the limit holds on a busy machine too.
func TestScanBounds(t *testing.T) {
	t.Parallel()
	var attrs strings.Builder
	for i := range cloudevents.MaxAttrs {
		attrs.WriteString(`,"a` + strconv.Itoa(i) + `":1`)
	}
	var escaped strings.Builder
	escaped.WriteString(`{` + required)
	for i := range cloudevents.MaxAttrs - 4 {
		escaped.WriteString(`,"` + strings.Repeat(`\u005f`, 250) + strconv.Itoa(i) + `":{}`)
	}
	escaped.WriteString(`}`)
	const head, million = `{` + required + `,"data":`, 1 << 20
	tests := []struct{ name, text, want string }{
		{"deep arrays", head + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", "nested deeper than 64 levels"},
		{"deep objects", head + strings.Repeat(`{"a":`, 100_000), "nested deeper than 64 levels"},
		{"one level too deep", head + strings.Repeat("[", 64) + strings.Repeat("]", 64) + "}", "nested deeper than 64 levels"},
		{"10 MB number", head + strings.Repeat("9", 10*million) + "}", "number longer than 4096 bytes"},
		{"10 MB number attribute", `{` + required + `,"a":` + strings.Repeat("9", 10*million) + "}", "number longer than 4096 bytes"},
		{"10 MB fraction attribute", `{` + required + `,"a":0.` + strings.Repeat("0", 10*million) + "}", "number longer than 4096 bytes"},
		{"10 MB name", `{` + required + `,"` + strings.Repeat("k", 10*million) + `":1}`, "the name is longer than 256 bytes"},
		{"escaped name", `{` + required + `,"` + strings.Repeat(`\u006b`, million) + `":1}`, "the name is longer than 256 bytes"},
		{"deep member", `{` + required + `,"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + "}", "nested deeper than 64 levels"},
		{"10 MB number in a member", `{` + required + `,"a":[` + strings.Repeat("9", 10*million) + "]}", "number longer than 4096 bytes"},
		{"10 MB member", `{` + required + `,"a":[0` + strings.Repeat(",0", 5*million) + "]}", "longer than 65536 bytes"},
		{"too many members", `{` + required + strings.ReplaceAll(attrs.String(), ":1", ":{}") + `}`, "more than 128 attributes"},
		{"escaped members", escaped.String(), ""},
		{"too many attributes", `{` + required + attrs.String() + `}`, "more than 128 attributes"},
		{"a million elements", head + "[0" + strings.Repeat(",0", million) + "]}", ""},
		{"a million escapes", head + `"` + strings.Repeat(`\n`, million) + `"}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := cloudevents.Scan([]byte(tt.text))
			if took := time.Since(start); took > 3*time.Minute {
				t.Errorf("took %v", took)
			}
			if tt.want != "" {
				wantInvalid(t, err, tt.want)
				if len(err.Error()) > 300 {
					t.Errorf("error text has %d bytes", len(err.Error()))
				}
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestScanBatch(t *testing.T) {
	t.Parallel()
	one := `{` + required + `,"data":[1 ,2]}`
	deep := `{` + required + `,"data":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`
	tests := []struct {
		name, text, want string
		n                int
	}{
		{"empty", " [ ] ", "", 0},
		{"one", "[" + one + "]", "", 1},
		{"three", "[ " + one + " ,\n" + one + "," + one + "] ", "", 3},
		{"deepest", "[" + deep + "]", "", 1},
		{"too deep", "[" + strings.Replace(deep, "[]", "[[]]", 1) + "]", "nested deeper than 64 levels", 0},
		{"not an array", one, "scan batch: byte 0: expected an array of events", 0},
		{"nothing", "", "the text ends too early", 0},
		{"open", "[" + one, "the text ends too early", 0},
		{"trailing comma", "[" + one + ",]", "expected a value", 0},
		{"something follows", "[]x", "byte 2: something follows the end", 0},
		{"no comma", "[" + one + one + "]", "expected , or ] in the batch", 0},
		{"bad event", "[" + one + `,{"id":1}]`, "event 1 at byte 71: scan event: byte 6", 0},
		{"number", "[1]", "event 0 at byte 1: scan event: byte 0: expected an object", 0},
		{"too many", "[" + strings.Repeat("{},", cloudevents.MaxBatch) + "{}]", "more than 10000 events", 0},
		{"not UTF-8", "[\"\xff\"]", "byte 2: not UTF-8", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			events, err := cloudevents.ScanBatch([]byte(tt.text))
			if tt.want != "" {
				wantInvalid(t, err, tt.want)
				return
			}
			if err != nil || len(events) != tt.n {
				t.Fatalf("got %d events, %v, want %d", len(events), err, tt.n)
			}
			for _, e := range events {
				if got := string(e.JSON()); got != one && got != deep {
					t.Errorf("event is %s, want %s", got, one)
				}
			}
			again, err := cloudevents.ScanBatch(cloudevents.AppendBatch(nil, events...))
			if err != nil || len(again) != tt.n {
				t.Errorf("written and read again: %d events, %v", len(again), err)
			}
		})
	}
}

func TestDataIsNotWritable(t *testing.T) {
	t.Parallel()
	text := `{` + required + `,"data":[1],"z":1}`
	e := mustScan(t, text)
	_ = append(e.Data(), "xxxx"...)
	_ = append(e.JSON(), "xxxx"...)
	if !bytes.Equal(e.JSON(), []byte(text)) {
		t.Errorf("an append to Data changed the event: %s", e.JSON())
	}
}
