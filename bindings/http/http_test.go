package http

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func defaults(url string) options {
	return options{
		URL: url, ResponseTimeout: 10 * time.Second, MaxResponseBodySize: 1 << 20, ErrorIfNot2XX: true,
		Renegotiation: "RenegotiateNever",
	}
}

func opened(t *testing.T, o options) *binding {
	t.Helper()
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	d, err := open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*binding)
}

// asked is a request as the server saw it.
type asked struct {
	Method, URI, Body string
	Header            map[string]string
}

// serve starts a server that notes requests and answers by handle.
func serve(t *testing.T, handle http.HandlerFunc) (string, func() asked) {
	t.Helper()
	var last atomic.Pointer[asked]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a := &asked{r.Method, r.RequestURI, string(body), map[string]string{}}
		for name := range r.Header {
			if name != "User-Agent" && name != "Content-Length" {
				a.Header[name] = strings.Join(r.Header[name], "|")
			}
		}
		last.Store(a)
		if handle != nil {
			handle(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() asked { return *last.Load() }
}

func TestRequest(t *testing.T) {
	t.Parallel()
	accept := map[string]string{"Accept": jsonContent}
	both := map[string]string{"Accept": jsonContent, "Content-Type": jsonContent}
	rows := []struct {
		name, base, operation, data string
		meta                        map[string]string
		change                      func(*options)
		want                        asked
	}{
		{name: "create is POST", operation: "create", data: "x", want: asked{"POST", "/", "x", both}},
		{name: "post", operation: "post", data: "\x00\xff", want: asked{"POST", "/", "\x00\xff", both}},
		{name: "put", operation: "put", data: "x", want: asked{"PUT", "/", "x", both}},
		{name: "patch", operation: "patch", data: "x", want: asked{"PATCH", "/", "x", both}},
		{name: "get has no body", operation: "get", data: "x", want: asked{"GET", "/", "", accept}},
		{name: "head", operation: "head", want: asked{"HEAD", "/", "", accept}},
		{name: "delete", operation: "delete", data: "x", want: asked{"DELETE", "/", "", accept}},
		{name: "options", operation: "options", want: asked{"OPTIONS", "/", "", accept}},
		{name: "trace", operation: "trace", want: asked{"TRACE", "/", "", accept}},
		{name: "path", base: "/api/", operation: "get", meta: map[string]string{"path": "/a b/%2F?q=1&r=a b"}, want: asked{"GET", "/api/a%20b/%2F?q=1&r=a%20b", "", accept}},
		{name: "path and query of the base", base: "/api?key=k", operation: "get", meta: map[string]string{"path": "x?q=1"}, want: asked{"GET", "/api/x?key=k&q=1", "", accept}},
		{
			name: "headers", operation: "post",
			meta: map[string]string{
				"Content-Type": "text/plain", "Accept": "*/*", "X-One": "1", "x-two": "2", "Host": "evil", "Transfer-Encoding": "chunked", "Connection": "close",
				"traceparent": "00-01", "tracestate": "a=b", "baggage": "c=d",
			},
			want: asked{"POST", "/", "", map[string]string{
				"Content-Type": "text/plain", "Accept": "*/*", "X-One": "1", "Traceparent": "00-01", "Tracestate": "a=b", "Baggage": "c=d",
			}},
		},
		{
			name: "security token", operation: "get",
			change: func(o *options) {
				o.SecurityToken, o.SecurityTokenHeader = component.NewSecret("t0ken"), "X-Security-Token"
			},
			want: asked{"GET", "/", "", map[string]string{"Accept": jsonContent, "X-Security-Token": "t0ken"}},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			url, last := serve(t, nil)
			o := defaults(url + row.base)
			if row.change != nil {
				row.change(&o)
			}
			b := opened(t, o)
			if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: row.operation, Data: []byte(row.data), Metadata: row.meta}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, last()); diff != "" {
				t.Fatalf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Many"] = []string{"a", "b"}
		w.Header()["Date"] = nil
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte("\x00body"))
	})
	res, err := opened(t, defaults(url)).Invoke(t.Context(), &bindings.Request{Operation: "get"})
	if err != nil {
		t.Fatal(err)
	}
	want := &bindings.Response{Data: []byte("\x00body"), Metadata: map[string]string{
		"statusCode": "201", "status": "201 Created", "X-Many": "a, b", "Content-Type": "text/plain", "Content-Length": "5",
	}}
	if diff := cmp.Diff(want, res); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	rows := []struct {
		status int
		kind   fault.Kind
		after  string
	}{
		{400, fault.Invalid, ""},
		{401, fault.Denied, ""},
		{404, fault.NotFound, ""},
		{409, fault.Conflict, ""},
		{429, fault.Exhausted, "7"},
		{500, fault.Internal, ""},
		{503, fault.Unavailable, "3"},
		{302, fault.Denied, ""},
	}
	for _, row := range rows {
		t.Run(http.StatusText(row.status), func(t *testing.T) {
			t.Parallel()
			url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if row.after != "" {
					w.Header().Set("Retry-After", row.after)
				}
				w.Header().Set("Location", "http://169.254.169.254/")
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, "because\n"+strings.Repeat("x", 1000))
			})
			b := opened(t, defaults(url))
			_, err := b.Invoke(t.Context(), &bindings.Request{Operation: "post"})
			if err == nil || fault.KindOf(err) != row.kind || strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
				t.Fatalf("error %v of kind %v, want kind %v", err, fault.KindOf(err), row.kind)
			}
			if coded, ok := errors.AsType[interface {
				error
				HTTPStatus() int
			}](err); !ok || coded.HTTPStatus() != row.status {
				t.Fatalf("no policy can see the status of %v", err)
			}
			if after := fault.RetryAfter(err); row.after != "" && after.String() != row.after+"s" {
				t.Fatalf("Retry-After %v, want %ss", after, row.after)
			}
			res, err := b.Invoke(t.Context(), &bindings.Request{Operation: "post", Metadata: map[string]string{"errorIfNot2XX": "false"}})
			if err != nil || res.Metadata["statusCode"] == "" || !strings.HasPrefix(string(res.Data), "because") {
				t.Fatalf("errorIfNot2XX=false: %v, %v", res, err)
			}
		})
	}
}

func TestNoPartOfTheTokenIsShown(t *testing.T) {
	t.Parallel()
	const token = "c4n4ry-0123456789-abcdefghij"
	for before := 0; before < 230; before += 5 {
		url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, strings.Repeat("-", before)+strings.Repeat(r.Header.Get("X-Token"), 1+before%3)+strings.Repeat("+", 300))
		})
		o := defaults(url)
		o.SecurityToken, o.SecurityTokenHeader = component.NewSecret(token), "X-Token"
		_, err := opened(t, o).Invoke(t.Context(), &bindings.Request{Operation: "post"})
		if err == nil || strings.Contains(err.Error(), token[:3]) || !strings.HasSuffix(err.Error(), `"...`) {
			t.Fatalf("%d bytes before the token: %v", before, err)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 2<<20))
		case "/hang":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "short")
		case "/drop":
			panic(http.ErrAbortHandler)
		}
	})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	closedPort := httptest.NewServer(nil)
	closedPort.Close()
	rows := []struct {
		name, url, path string
		ctx             context.Context
		kind            fault.Kind
	}{
		{"answer too long", url, "/long", nil, fault.Invalid},
		{"never answers", url, "/hang", nil, fault.Timeout},
		{"cut in the body", url, "/cut", nil, fault.Unavailable},
		{"dropped", url, "/drop", nil, fault.Unavailable},
		{"cancelled", url, "/", cancelled, fault.Unavailable},
		{"refused", closedPort.URL, "/", nil, fault.Unavailable},
		{"no such host", "http://host.invalid", "/", nil, fault.Unavailable},
		{"metadata service", "http://169.254.169.254", "/", nil, fault.Denied},
		{"mapped address", "http://[::ffff:169.254.169.254]", "/", nil, fault.Denied},
		{"unspecified address", "http://0.0.0.0:1", "/", nil, fault.Denied},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := defaults(row.url)
			o.ResponseTimeout = 2 * time.Second
			if row.path == "/hang" {
				o.ResponseTimeout = 50 * time.Millisecond
			}
			ctx := row.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			_, err := opened(t, o).Invoke(ctx, &bindings.Request{Operation: "get", Metadata: map[string]string{"path": row.path + "?key=hidden"}})
			if err == nil || fault.KindOf(err) != row.kind || strings.Contains(err.Error(), "hidden") {
				t.Fatalf("error %v of kind %v, want kind %v and no query in the text", err, fault.KindOf(err), row.kind)
			}
		})
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	other, otherLast := serve(t, nil)
	var target atomic.Value
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.Redirect(w, r, target.Load().(string), http.StatusTemporaryRedirect)
		}
	})
	o := defaults(url)
	o.FollowRedirects = true
	o.SecurityToken, o.SecurityTokenHeader = component.NewSecret("t0ken"), "X-Token"
	b := opened(t, o)
	invoke := func(to string) error {
		target.Store(to)
		_, err := b.Invoke(t.Context(), &bindings.Request{Operation: "post", Data: []byte("x"), Metadata: map[string]string{"Authorization": "Bearer y"}})
		return err
	}
	if err := invoke("/there"); err != nil {
		t.Fatal(err)
	}
	if err := invoke(other); err != nil {
		t.Fatal(err)
	}
	if got := otherLast(); got.Body != "x" || got.Header["X-Token"] != "" || got.Header["Authorization"] != "" {
		t.Fatalf("the other host got %+v, want the body and no credentials", got)
	}
	for to, kind := range map[string]fault.Kind{
		"http://169.254.169.254/": fault.Denied, "file:///etc/passwd": fault.Denied, "http://[::ffff:a9fe:a9fe]/": fault.Denied, "/": fault.Invalid,
	} {
		if err := invoke(to); err == nil || fault.KindOf(err) != kind {
			t.Errorf("redirect to %s: %v of kind %v, want kind %v", to, err, fault.KindOf(err), kind)
		}
	}
}

func TestRedirectRules(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, from, to, cert, want string }{
		{"same host", "https://a.example/x", "https://a.example/y", "c", ""},
		{"other host", "https://a.example/x", "https://b.example/y", "", ""},
		{"down to http", "https://a.example/", "http://a.example/", "", "from https to http"},
		{"up to https", "http://a.example/", "https://a.example/", "", ""},
		{"with a client certificate", "https://a.example/", "https://b.example/", "c", "client certificate"},
		{"to this machine", "http://a.example/", "http://127.0.0.1/", "", "this machine"},
		{"to this machine by name", "http://a.example/", "http://localhost.:80/", "", "this machine"},
		{"to this machine, mapped", "http://a.example/", "http://[::ffff:127.0.0.1]/", "", "this machine"},
		{"within this machine", "http://localhost:1/", "http://127.0.0.1:2/", "", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := &binding{options: options{FollowRedirects: true, ClientCert: row.cert}}
			err := b.redirect(httptest.NewRequest("GET", row.to, nil), []*http.Request{httptest.NewRequest("GET", row.from, nil)})
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Fatalf("%v, want %q", err, row.want)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	b := opened(t, defaults("http://127.0.0.1:1"))
	rows := []struct {
		name, operation string
		meta            map[string]string
	}{
		{"operation", "connect", nil},
		{"no operation", "", nil},
		{"path", "get", map[string]string{"path": "../x"}},
		{"header name", "get", map[string]string{"X Y": "z"}},
		{"header value", "get", map[string]string{"X-Y": "a\r\nX-Z: b"}},
		{"trace value", "get", map[string]string{"traceparent": "a\nb"}},
		{"truth value", "get", map[string]string{"errorIfNot2XX": "perhaps"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: row.operation, Metadata: row.meta}); fault.KindOf(err) != fault.Invalid || err == nil {
				t.Fatalf("%v of kind %v, want invalid", err, fault.KindOf(err))
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	t.Cleanup(s.Close)
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	o := defaults(s.URL)
	if _, err := opened(t, o).Invoke(t.Context(), &bindings.Request{Operation: "get"}); fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("unknown certificate: %v", err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	o.RootCA = file
	if _, err := opened(t, o).Invoke(t.Context(), &bindings.Request{Operation: "get"}); fault.KindOf(err) != fault.Denied {
		t.Fatalf("trusted certificate without one of ours: %v, want the server's 403", err)
	}
	clientCert, clientKey := pair(t)
	o.RootCA, o.ClientCert, o.ClientKey = cert, clientCert, component.NewSecret(clientKey)
	o.Renegotiation = "RenegotiateOnceAsClient"
	if _, err := opened(t, o).Invoke(t.Context(), &bindings.Request{Operation: "get"}); err != nil {
		t.Fatalf("with a certificate of ours: %v", err)
	}
	for name, change := range map[string]func(*options){
		"no certificate":  func(o *options) { o.RootCA = "-----BEGIN nothing" },
		"missing file":    func(o *options) { o.RootCA = file + ".none" },
		"wrong key":       func(o *options) { o.ClientKey = component.NewSecret("-----BEGIN nonsense") },
		"missing keyfile": func(o *options) { o.ClientKey = component.NewSecret("s3cret-key") },
	} {
		bad := o
		change(&bad)
		_, err := open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, bad)
		if err == nil || strings.Contains(err.Error(), "s3cret-key") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// pair makes a certificate signed by itself, and its key.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

func TestCheck(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		change func(*options)
		want   string
	}{
		{"good", func(*options) {}, ""},
		{"no scheme", func(o *options) { o.URL = "example.com" }, `"url": must begin with http`},
		{"file", func(o *options) { o.URL = "file:///etc/passwd" }, `"url": must begin with http`},
		{"no host", func(o *options) { o.URL = "http:///x" }, `"url": has no host`},
		{"fragment", func(o *options) { o.URL = "http://a/#x" }, `fragment`},
		{"bad port", func(o *options) { o.URL = "http://u:hidden@a:x/" }, `"url": invalid port`},
		{"no time", func(o *options) { o.ResponseTimeout = 0 }, `responseTimeout`},
		{"no room", func(o *options) { o.MaxResponseBodySize = 0 }, `maxResponseBodySize`},
		{"certificate without key", func(o *options) { o.ClientCert = "x" }, `go together`},
		{"bad header name", func(o *options) { o.SecurityTokenHeader = "X Y" }, `securityTokenHeader`},
		{"token with a line break", func(o *options) { o.SecurityToken = component.NewSecret("hidden\n") }, `"securityToken"`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := defaults("https://example.com/api")
			row.change(&o)
			err := o.Check()
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "hidden")) {
				t.Fatalf("Check: %v, want %q", err, row.want)
			}
		})
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	rows := []struct{ base, path, want string }{
		{"http://h", "", "http://h"},
		{"http://h", "a", "http://h/a"},
		{"http://h/", "/a/", "http://h/a/"},
		{"http://h/b", "a/b:c", "http://h/b/a/b:c"},
		{"http://h/b", "/a:b", "http://h/b/a:b"},
		{"http://h/b", "/@scope/pkg", "http://h/b/@scope/pkg"},
		{"http://h/b", "a..b/...", "http://h/b/a..b/..."},
		{"http://h/%2Fb", "ä", "http://h/%2Fb/%C3%A4"},
		{"http://h/b", "?q=../x", "http://h/b/?q=../x"},
		{"http://u:p@h:1/b?x=1", "a?y=2", "http://u:p@h:1/b/a?x=1&y=2"},
		{"http://h", "a?url=http://x/", "http://h/a?url=http://x/"},
		{"http://h", "..", ""},
		{"http://h", "../admin", ""},
		{"http://h", "a/../b", ""},
		{"http://h", "a/..;x/b", ""},
		{"http://h", "%2e%2e/admin", ""},
		{"http://h", "%2E./admin", ""},
		{"http://h", "%252e%252e/admin", ""},
		{"http://h", "a%2f..%2fb", ""},
		{"http://h", "//evil", ""},
		{"http://h", "%2f%2fevil", ""},
		{"http://h", "@evil", ""},
		{"http://h", "%40evil", ""},
		{"http://h", `\\evil`, ""},
		{"http://h", `a\..\b`, ""},
		{"http://h", "%5c%5cevil", ""},
		{"http://h", "http://evil/", ""},
		{"http://h", "javascript:x", ""},
		{"http://h", ":80", ""},
		{"http://h", "a#b", ""},
		{"http://h", "a?b#c", ""},
		{"http://h", "a\r\nb", ""},
		{"http://h", "a%0d%0ab", ""},
		{"http://h", "a%00", ""},
		{"http://h", "%zz", ""},
		{"http://h", strings.Repeat("a", 10_000), ""},
	}
	for _, row := range rows {
		base, err := url.Parse(row.base)
		if err != nil {
			t.Fatal(err)
		}
		got, err := join(base, row.path)
		if row.want == "" {
			if err == nil {
				t.Errorf("join(%q, %q) = %s, want an error", row.base, row.path, got)
			}
			continue
		}
		if err != nil || got.String() != row.want {
			t.Errorf("join(%q, %q) = %v, %v; want %s", row.base, row.path, got, err, row.want)
		}
	}
}

func FuzzJoin(f *testing.F) {
	for _, seed := range []string{"a", "/a?b=c", "..", "%2e%2e/x", "//evil", "@evil", `\\evil`, "%252e%252e", "a;..", "a?b c", "\xff", "?", "%"} {
		f.Add(seed)
	}
	base, err := url.Parse("https://user:pass@host.example:8443/base/path?key=k")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := join(base, path)
		if err != nil {
			return
		}
		again, err := url.Parse(u.String())
		if err != nil {
			t.Fatalf("%q gives %q, which cannot be read: %v", path, u, err)
		}
		clean := again.JoinPath().Path
		if again.Scheme != "https" || again.Host != "host.example:8443" || again.User.String() != "user:pass" ||
			clean != "/base/path" && !strings.HasPrefix(clean, "/base/path/") || again.Query().Get("key") != "k" || again.Fragment != "" {
			t.Fatalf("%q leads to %q", path, again)
		}
		if strings.ContainsAny(u.RequestURI(), " \r\n\x00") {
			t.Fatalf("%q makes the request line %q", path, u.RequestURI())
		}
	})
}
