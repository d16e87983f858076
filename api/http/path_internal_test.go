package http

import (
	"net/url"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
)

// The short way of publish and the router read every path alike.
func FuzzPublishTarget(f *testing.F) {
	for _, s := range []string{
		"/v1.0/publish/bus/t", "/v1.0/publish/bus/", "/v1.0/publish/bus", "/v1.0/publish/", "/v1.0/publish//t",
		"/v1.0/publish/bulk/t", "/v1.0/publish/bulk/", "/v1.0/publish/bulk/bus/t", "/v1.0/publish/bulk//t", "/v1.0/publish/bulk/bus/",
		"/v1.0/publish/bul%6b/bus/t", "/v1.0/publish/a%2Fb/c/../d//", "/v1.0/publish", "//v1.0/publish/bus/t", "/v1.0/publish/bus/t;x",
	} {
		f.Add(s)
	}
	h := New(api.New("shop", nil), Options{}).(*handler)
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil || u.Host != "" || u.Opaque != "" {
			t.Skip()
		}
		path := canonical(u)
		rc := chi.NewRouteContext()
		pattern := h.mux.Find(rc, "POST", path)
		routed := pattern == "/v1.0/publish/{bus}/*"
		got, short := publishTarget("POST", path)
		if short != routed {
			t.Fatalf("%q: short way %v, router %q", path, short, pattern)
		}
		if want := (target{rc.URLParam("bus"), rc.URLParam("*")}); short && got != want {
			t.Fatalf("%q: short way %v, router %v", path, got, want)
		}
	})
}

// A canonical path is read once: what was escaped is never decoded twice.
func TestUnescape(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw, want string
		ok        bool
	}{
		{"plain", "plain", true},
		{"a%2Fb", "a/b", true},
		{"a%252Fb", "a%2Fb", true},
		{"a+b", "a+b", true},
		{"%", "", false},
		{"%zz", "", false},
		{"a%00", "", false},
		{"a%7f", "", false},
		{"a%0d%0ab", "", false},
		{"%C3%BC", "\u00fc", true},
	}
	for _, tt := range tests {
		got, err := unescape("name", tt.raw)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%q: %q, %v", tt.raw, got, err)
		}
	}
}

// A hostile query is read or refused, without a panic.
func FuzzQueryMetadata(f *testing.F) {
	for _, s := range []string{"", "metadata.a=b", "metadata.a=b&metadata.a=c", "metadata.=x", "%6detadata.a=%41", "a=%zz", "%zz", "metadata.a", "&&=&", "metadata.a=b=c;d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		m, err := queryMetadata(query, api.PublishMetadata)
		if err != nil {
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			return // semicolons and escapes of other parameters are no matter here
		}
		for k, v := range m {
			all := values["metadata."+k]
			if len(all) == 0 || all[len(all)-1] != v {
				t.Fatalf("%q: %s=%q, the standard library has %q", query, k, v, all)
			}
		}
	})
}
