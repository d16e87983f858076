package attack

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// row is one attack.
type row struct {
	Name string `yaml:"name"`
	// To is the server: "callee" (the sidecar of the app, unless another is named),
	// "shop" (the sidecar of an app that calls it), "console" (that of the callee),
	// "callee-grpc" or "shop-grpc", "callee-internal" (what other sidecars call).
	To string `yaml:"to"`

	// Request is sent as it is, but that each line ends with CRLF, and a blank line
	// stands behind the last. {token} is a header with the token of the API, {host} the
	// address, {app} the port of the app, {cookie} and {key} are the headers of a session
	// of the console, {length} the length of what stands behind the first blank line,
	// <<n>> stands for n times x, <<n[>> for n times [, <<gzip n>> for n times x, packed.
	// With Exact, \r, \n and \xNN are written out and nothing is added.
	Request string `yaml:"request"`
	Exact   bool   `yaml:"exact"`
	// Frames are the headers of a request over HTTP/2, "name: value", in this order.
	Frames []string `yaml:"frames"`
	// Call is the full name of a gRPC method, which is sent Message, in JSON when it is
	// one of Dapr's, and Metadata, "name: value".
	Call     string   `yaml:"call"`
	Message  string   `yaml:"message"`
	Metadata []string `yaml:"metadata"`
	// Packed sends the message as gzip.
	Packed bool `yaml:"packed"`

	// Status is that of the answer: one of them; 0 is a connection that is closed, or
	// a stream that is reset, without one. Code is that of a gRPC call.
	Status []int    `yaml:"status"`
	Code   []string `yaml:"code"`
	// Answers is how many answers come until the connection is closed; 0: it does not
	// matter.
	Answers int `yaml:"answers"`
	// Has and Lacks are texts of the answer with its headers.
	Has   []string `yaml:"has"`
	Lacks []string `yaml:"lacks"`
	// Saw is what the app got, "VERB target", in order; it must be nothing else.
	Saw []string `yaml:"saw"`
	// SawHas and SawLacks are texts of the headers and the body of what it got.
	SawHas   []string `yaml:"sawHas"`
	SawLacks []string `yaml:"sawLacks"`
	// Logged and Unlogged are texts of the logs of both sidecars.
	Logged   []string `yaml:"logged"`
	Unlogged []string `yaml:"unlogged"`
}

// rows reads all of them.
func rows(t *testing.T) map[string][]row {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no rows: %v", err)
	}
	out := map[string][]row{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var list []row
		if err := yaml.UnmarshalWithOptions(text, &list, yaml.Strict()); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".yaml")] = list
	}
	return out
}

var padding = regexp.MustCompile(`<<(gzip )?(\d+)([^>]*)>>`)

// expand fills in what stands for something else.
func expand(t *testing.T, text, host string) string {
	t.Helper()
	text = strings.NewReplacer("{token}", "dapr-api-token: "+apiToken, "{host}", host).Replace(text)
	if strings.Contains(text, "{cookie}") || strings.Contains(text, "{key}") {
		cookie, key := signIn(t, host)
		text = strings.NewReplacer("{cookie}", "Cookie: "+cookie, "{key}", "Penstock-Console: "+key).Replace(text)
	}
	return padding.ReplaceAllStringFunc(text, func(s string) string {
		parts := padding.FindStringSubmatch(s)
		n, err := strconv.Atoi(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		if parts[1] != "" {
			return string(packed(n))
		}
		return strings.Repeat(cmp.Or(parts[3], "x"), n)
	})
}

// packed is n times x as gzip, a thousandth of it: one piece after the other, which
// counts as one, so that only one must be packed.
func packed(n int) []byte {
	const piece = 1 << 20
	pack := func(n int) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(bytes.Repeat([]byte("x"), n)) // into memory
		_ = z.Close()
		return b.Bytes()
	}
	return append(bytes.Repeat(pack(piece), n/piece), pack(n%piece)...)
}

// bytes returns what a request is on the wire.
func (r row) bytes(t *testing.T, host string) string {
	t.Helper()
	text := expand(t, r.Request, host)
	if !r.Exact {
		head, body, _ := strings.Cut(strings.TrimRight(text, "\n"), "\n\n")
		head = strings.ReplaceAll(head, "{length}", strconv.Itoa(len(body)))
		return strings.ReplaceAll(head+"\n\n", "\n", "\r\n") + body
	}
	quoted := `"` + strings.ReplaceAll(strings.ReplaceAll(text, "\n", ""), `"`, `\"`) + `"`
	exact, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	return exact
}
