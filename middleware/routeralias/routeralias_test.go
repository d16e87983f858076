package routeralias

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Middleware(t, Component, conform.MiddlewareSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"routes": `{"/orders/{id}": "/v1.0/x"}`} },
		Wrong: map[string]map[string]string{
			"routes": {"routes": "[a]"}, "thisOptionIsUnknown": {"thisOptionIsUnknown": "x"},
		},
		Pass: func(*testing.T, map[string]string) *http.Request {
			return httptest.NewRequest("POST", "/orders/7?a=b", nil)
		},
	})
}

// seen is where a request arrives, as it would be dispatched and logged.
func seen(t *testing.T, options map[string]string, target string) (path, uri string) {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	d, err := Component.Open(t.Context(), component.Env{}, items)
	if err != nil {
		t.Fatal(err)
	}
	h := d.(middleware.Driver).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		path, uri = middleware.Path(r.URL), r.RequestURI
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, nil))
	return path, uri
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	routes := map[string]string{"routes": `
/plain: /v1.0/plain
/plain/{x}: /one
/plain/{x}/long: /two
/plain/fixed/long: /three
"/n/{id:[0-9]{1,3}}": /number
"/rest/{all:.*}": /all
"/a/{x}/{y}": /v1.0/state/s%2Ft/k
/q: /v1.0/with
`}
	for target, want := range map[string]string{
		"/plain":                  "/v1.0/plain",
		"/plain?b=1&a=2":          "/v1.0/plain?b=1&a=2",
		"/plain/7":                "/one?x=7",
		"/plain/7?x=6":            "/one?x=6&x=7",
		"/plain/7/long":           "/two?x=7",
		"/plain/fixed/long":       "/three",
		"/plain/":                 "/plain/",
		"/plain/7/":               "/plain/7/",
		"//plain":                 "//plain",
		"/PLAIN":                  "/PLAIN",
		"/plain/../plain":         "/plain/../plain",
		"/pl%61in":                "/v1.0/plain",
		"/plain/a%26b=c%20d":      "/one?x=a%26b%3Dc+d",
		"/plain/a%2Fb":            "/plain/a%2Fb",
		"/plain/a%2fb":            "/plain/a%2fb",
		"/plain/%252F":            "/one?x=%252F",
		"/plain%2F7":              "/plain%2F7",
		"/plain/%0d%0aSet-Cookie": "/one?x=%0D%0ASet-Cookie",
		"/n/123":                  "/number?id=123",
		"/n/1234":                 "/n/1234",
		"/n/x":                    "/n/x",
		"/rest/a/b/c":             "/all?all=a%2Fb%2Fc",
		"/rest/":                  "/all?all=",
		"/a/1/2":                  "/v1.0/state/s%2Ft/k?x=1&y=2",
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			path, uri := seen(t, routes, target)
			if uri != want || path != strings.Split(want, "?")[0] {
				t.Errorf("arrived at %q (%q), want %q", path, uri, want)
			}
		})
	}
}

// Older files have a route in each option.
func TestOlderForm(t *testing.T) {
	t.Parallel()
	if _, uri := seen(t, map[string]string{"/a/{b}": "/c", "/d": "/e"}, "/a/1"); uri != "/c?b=1" {
		t.Errorf("arrived at %q", uri)
	}
	if _, uri := seen(t, nil, "/a/1"); uri != "/a/1" {
		t.Errorf("without a route it arrived at %q", uri)
	}
}

func TestWrongRoutes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: /b": `begins with "/"`, "/a: b": "does not begin", "/a: //evil.example": "one \"/\"", "/a: /b?c": "neither query", "/a: /b#c": "neither query",
		"/a: /%zz": "not one of a URL", "/a}: /b": "closes nothing", "/a{b: /c": "not closed", "/{}: /b": "no name",
		`"/{a:[}": /b`: `the expression of "a"`, `"/{a:(b)}": /c`: "has a group", `"/{a:b)|(c}": /d`: `the expression of "a"`,
		"- a":               "want a mapping",
		"/a: {b: c}":        "want a text",
		many(maxRoutes + 1): "1000 is the limit",
	} {
		ps := Component.Check([]config.Item{{Name: "routes", Value: text}})
		if errs, _ := ps.Split(false); len(errs) != 1 || !strings.Contains(errs.Error(), want) {
			t.Errorf("%.40q: %v, want one error with %q", text, ps, want)
		}
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "/a%d: /x\n", i)
	}
	return b.String()
}
