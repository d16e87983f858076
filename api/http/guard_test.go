package http_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apihttp "github.com/penstock-io/penstock/api/http"
)

func TestToken(t *testing.T) {
	t.Parallel()
	i := start(t)
	h := i.handler(apihttp.Options{Tokens: []string{"", "Secr3t token", "next"}})
	tests := []struct {
		name, method, target string
		header               []string
		status               int
	}{
		{"right", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", "Secr3t token"}, 204},
		{"right, header in capitals", "POST", "/v1.0/publish/bus/t", []string{"DAPR-API-TOKEN", "Secr3t token"}, 204},
		{"second", "GET", "/v1.0/metadata", []string{"dapr-api-token", "next"}, 200},
		{"none", "POST", "/v1.0/publish/bus/t", nil, 401},
		{"empty", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", ""}, 401},
		{"prefix", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", "Secr3t"}, 401},
		{"longer", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", "Secr3t token "}, 401},
		{"other case", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", "secr3t token"}, 401},
		{"twice", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", "next", "dapr-api-token", "next"}, 401},
		{"both in one", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", "next,next"}, 401},
		{"in query", "POST", "/v1.0/publish/bus/t?dapr-api-token=next", nil, 401},
		{"bearer", "POST", "/v1.0/publish/bus/t", []string{"Authorization", "Bearer next"}, 401},
		{"1 MB", "POST", "/v1.0/publish/bus/t", []string{"dapr-api-token", strings.Repeat("x", 1<<20)}, 401},
		{"health", "GET", "/v1.0/healthz", nil, 204},
		{"health with query", "GET", "/v1.0/healthz?appid=shop", nil, 204},
		{"outbound health", "GET", "/v1.0/healthz/outbound", nil, 204},
		{"health in query", "GET", "/v1.0/metadata?x=/v1.0/healthz", nil, 401},
		{"health and dots", "GET", "/v1.0/healthz/../metadata", nil, 401},
		{"health and escaped dots", "GET", "/v1.0/healthz/%2e%2e/metadata", nil, 401},
		{"health by post", "POST", "/v1.0/healthz", nil, 401},
		{"health by head", "HEAD", "/v1.0/healthz", nil, 401},
		{"health with two slashes", "GET", "/v1.0//healthz", nil, 401},
		{"health with slash behind", "GET", "/v1.0/healthz/", nil, 401},
		{"health escaped", "GET", "/v1.0/health%7a", nil, 401},
		{"health with semicolon", "GET", "/v1.0/healthz;x", nil, 401},
		{"unknown path", "GET", "/nope", nil, 401},
		{"unimplemented", "GET", "/v1.0/state/s/k", nil, 401},
		{"shutdown", "POST", "/v1.0/shutdown", nil, 401},
		{"secret", "GET", "/v1.0/secrets/vault/db", nil, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := ask(h, tt.method, tt.target, "", tt.header...)
			if w.Code != tt.status {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tt.status)
			}
			if w.Code == 401 && code(t, w) != "ERR_UNAUTHENTICATED" {
				t.Errorf("body %s", w.Body)
			}
		})
	}
}

func TestOnlyEmptyTokensMeanNoCheck(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{Tokens: []string{""}})
	if w := ask(h, "GET", "/v1.0/metadata", ""); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	i := start(t)
	tcp := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 3500}
	tests := []struct {
		name, host string
		local      net.Addr
		allowed    []string
		ok         bool
	}{
		{"localhost", "localhost", nil, nil, true},
		{"localhost with port", "LocalHost:3500", nil, nil, true},
		{"loopback", "127.0.0.1:3500", nil, nil, true},
		{"other loopback", "127.9.9.9", nil, nil, true},
		{"loopback v6", "[::1]:3500", nil, nil, true},
		{"mapped loopback", "[::ffff:127.0.0.1]", nil, nil, true},
		{"listen address", "10.1.2.3:3500", tcp, nil, true},
		{"other address", "10.1.2.4:3500", tcp, nil, false},
		{"foreign address", "10.1.2.3:3500", nil, nil, false},
		{"evil", "evil.test", nil, nil, false},
		{"loopback as prefix", "127.0.0.1.evil.test", nil, nil, false},
		{"localhost as prefix", "localhost.evil.test", nil, nil, false},
		{"localhost as suffix", "evil-localhost", nil, nil, false},
		{"user part", "localhost@evil.test", nil, nil, false},
		{"port of no kind", "localhost:3500.evil.test", nil, nil, false},
		{"open bracket", "[::1", nil, nil, false},
		{"bracket and more", "[::1]evil", nil, nil, false},
		{"empty", "", nil, nil, false},
		{"only port", ":3500", nil, nil, false},
		{"decimal address", "2130706433", nil, nil, false},
		{"configured", "Sidecar.Local:3500", nil, []string{"sidecar.local"}, true},
		{"configured address", "[2001:db8::1]:3500", nil, []string{"[2001:db8::1]"}, true},
		{"not configured", "other.local:3500", nil, []string{"sidecar.local"}, false},
		{"any", "whatever.test", nil, []string{"*"}, true},
		{"unix socket", "whatever", &net.UnixAddr{Name: "/run/x.sock", Net: "unix"}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("POST", "/v1.0/metadata/"+strings.ReplaceAll(tt.name, " ", "-"), strings.NewReader("x"))
			r.Host = tt.host
			r.Header.Set("X-Forwarded-Host", "localhost")
			if tt.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tt.local))
			}
			w := httptest.NewRecorder()
			i.handler(apihttp.Options{AllowedHosts: tt.allowed}).ServeHTTP(w, r)
			want := 403
			if tt.ok {
				want = 204
			}
			if w.Code != want {
				t.Errorf("host %q: %d %s, want %d", tt.host, w.Code, w.Body, want)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		method string
		header []string
		status int
		allow  string
	}{
		{"program", "POST", nil, 204, ""},
		{"foreign page", "POST", []string{"Origin", "https://evil.test", "Content-Type", "text/plain"}, 403, ""},
		{"foreign read", "GET", []string{"Origin", "https://evil.test"}, 403, ""},
		{"null", "POST", []string{"Origin", "null"}, 403, ""},
		{"empty", "POST", []string{"Origin", ""}, 403, ""},
		{"two", "POST", []string{"Origin", "http://localhost:3500", "Origin", "https://evil.test"}, 403, ""},
		{"other port", "POST", []string{"Origin", "http://localhost:8080"}, 403, ""},
		{"other scheme", "POST", []string{"Origin", "file://localhost:3500"}, 403, ""},
		{"cross-site", "POST", []string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"same-site", "POST", []string{"Sec-Fetch-Site", "same-site"}, 403, ""},
		{"cross-site read", "GET", []string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"odd site", "POST", []string{"Sec-Fetch-Site", "SAME-ORIGIN"}, 403, ""},
		{"two sites", "POST", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Site", "none"}, 403, ""},
		{"same origin", "POST", []string{"Origin", "http://localhost:3500", "Sec-Fetch-Site", "same-origin"}, 204, ""},
		{"same origin, cross-site", "POST", []string{"Origin", "http://localhost:3500", "Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"typed in", "GET", []string{"Sec-Fetch-Site", "none"}, 405, ""},
		{"preflight", "OPTIONS", []string{"Origin", "https://evil.test", "Access-Control-Request-Method", "POST"}, 403, ""},
		{"allowed", "POST", []string{"Origin", "https://app.test", "Sec-Fetch-Site", "cross-site"}, 204, "https://app.test"},
		{"allowed in capitals", "POST", []string{"Origin", "https://APP.test"}, 204, "https://APP.test"},
		{"allowed by star", "POST", []string{"Origin", "https://a.b.wild.test"}, 204, "https://a.b.wild.test"},
		{"star must not shrink", "POST", []string{"Origin", "https://.wild.tes"}, 403, ""},
		{"allowed as prefix", "POST", []string{"Origin", "https://app.test.evil.test"}, 403, ""},
		{"allowed preflight", "OPTIONS", []string{
			"Origin", "https://app.test", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "dapr-api-token",
		}, 204, "https://app.test"},
		{"allowed, no preflight", "OPTIONS", []string{"Origin", "https://app.test"}, 405, "https://app.test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := start(t)
			h := i.handler(apihttp.Options{AllowedOrigins: []string{"*", "https://App.test/", "https://*.wild.test"}})
			w := ask(h, tt.method, "/v1.0/publish/bus/t", "x", tt.header...)
			if w.Code != tt.status {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tt.status)
			}
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != tt.allow {
				t.Errorf("allowed origin %q, want %q", got, tt.allow)
			}
			if w.Code != 204 && len(i.broker.all()) > 0 || tt.method == "OPTIONS" && len(i.broker.all()) > 0 {
				t.Error("a refused request published")
			}
		})
	}
}

func TestPreflightNeedsNoToken(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{Tokens: []string{"x"}, AllowedOrigins: []string{"https://app.test"}})
	w := ask(h, "OPTIONS", "/v1.0/publish/bus/t", "", "Origin", "https://app.test",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,dapr-api-token,traceparent")
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Headers") != "content-type,dapr-api-token,traceparent" ||
		w.Header().Get("Access-Control-Allow-Credentials") != "" || w.Header().Get("Access-Control-Allow-Origin") != "https://app.test" ||
		!strings.Contains(w.Header().Get("Access-Control-Allow-Methods"), "PUT") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := ask(h, "POST", "/v1.0/publish/bus/t", "", "Origin", "https://app.test"); w.Code != 401 {
		t.Errorf("request itself: %d", w.Code)
	}
}

// Without a token every path but the two of health is refused, however it is
// spelled.
func FuzzTokenAndPath(f *testing.F) {
	for _, s := range []string{
		"/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/healthz/%2e%2e/metadata", "//v1.0/healthz", "/v1.0/healthz%00",
		"/v1%2e0/healthz", "/v1.0/healthz?a#b", "/v1.0/healthz%3f", "/v1.0/publish/bus/t", "/v1.0/metadata;/v1.0/healthz", "*", "",
	} {
		f.Add("GET", s)
		f.Add("POST", s)
	}
	f.Add("", "/v1.0/healthz") // net/http's word for GET
	i := start(f)
	h := i.handler(apihttp.Options{Tokens: []string{"token"}})
	f.Fuzz(func(t *testing.T, method, target string) {
		r, err := http.NewRequest(method, "http://localhost/", nil)
		if err != nil {
			t.Skip()
		}
		u, err := r.URL.Parse(target)
		if err != nil {
			t.Skip()
		}
		u.Scheme, u.Host, r.URL = "", "", u
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		wire, _, _ := strings.Cut(u.RequestURI(), "?")
		open := r.Method == "GET" && (wire == "/v1.0/healthz" || wire == "/v1.0/healthz/outbound")
		if !open && w.Code != 401 || open && w.Code == 401 {
			t.Fatalf("%s %q: %d", method, wire, w.Code)
		}
		if len(i.broker.all()) > 0 {
			t.Fatal("published without a token")
		}
	})
}
