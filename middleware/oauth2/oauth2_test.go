package oauth2

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/penstock-io/penstock/client/oauth2"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/oauth2server"
)

const cookieKey = "canary-of-the-cookie-key"

func optionsOf(s *oauth2server.Server, more map[string]string) map[string]string {
	o := map[string]string{
		"clientId": oauth2server.ClientID, "clientSecret": oauth2server.Secret, "authURL": s.URL + "/authorize?prompt=none", "tokenURL": s.URL + "/token",
		"scopes": "openid,email", "redirectURL": oauth2server.Redirect, "cookieKey": cookieKey,
	}
	maps.Copy(o, more)
	return o
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	s := oauth2server.Start(t)
	session := loggedIn(t, s) // in another process
	wrong := func(name, value string) map[string]string { return optionsOf(s, map[string]string{name: value}) }
	to := func(method, target string) conform.StoppedRequest {
		status := map[string]int{"GET": 302, "HEAD": 302, "POST": 401}[method]
		return conform.StoppedRequest{Request: func(*testing.T, map[string]string) *http.Request { return httptest.NewRequest(method, target, nil) }, Status: status}
	}
	conform.Middleware(t, Component, conform.MiddlewareSetup{
		Options: func(*testing.T) map[string]string { return optionsOf(s, nil) },
		Wrong: map[string]map[string]string{
			"authURL": wrong("authURL", "login"), "tokenURL": wrong("tokenURL", "ftp://x"), "redirectURL": wrong("redirectURL", "/login"), "pathFilter": wrong("pathFilter", "("),
			"authHeaderName": wrong("authHeaderName", "host"), "cookieName": wrong("cookieName", "a;b"), "logoutPath": wrong("logoutPath", "bye?x"), "cookieKey": wrong("cookieKey", "short"),
		},
		Pass: func(*testing.T, map[string]string) *http.Request {
			r := httptest.NewRequest("POST", "/v1.0/publish/bus/t", nil)
			for _, c := range session {
				r.AddCookie(c)
			}
			return r
		},
		Stop: map[string]conform.StoppedRequest{"no session": to("GET", "/x"), "head": to("HEAD", "/x"), "no session for a body": to("POST", "/x")},
	})
}

// site is an app behind a middleware, as a browser sees it: every host but the
// server's is the site.
type site struct {
	driver middleware.Driver
	log    *bytes.Buffer
	server *oauth2server.Server

	got  *http.Request    // the last that arrived at the app
	seen []*http.Response // all that the browser got
}

func newSite(t *testing.T, s *oauth2server.Server, options map[string]string) *site {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	log := &bytes.Buffer{}
	env := component.Env{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return &site{driver: d.(middleware.Driver), log: log, server: s}
}

// RoundTrip implements [http.RoundTripper].
func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	if "http://"+r.URL.Host == s.server.URL {
		return s.server.Client().Transport.RoundTrip(r)
	}
	w := httptest.NewRecorder()
	in := r.Clone(r.Context())
	in.Body, in.Host, in.RequestURI = http.NoBody, r.URL.Host, r.URL.RequestURI()
	s.driver.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.got = r
		_, _ = io.WriteString(w, "welcome")
	})).ServeHTTP(w, in)
	resp := w.Result()
	resp.Request = r
	s.seen = append(s.seen, resp)
	return resp, nil
}

// browser follows redirects and keeps cookies.
type browser struct {
	*http.Client
	*site
}

func (s *site) browser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{&http.Client{Transport: s, Jar: jar}, s}
}

// stay lets it follow no redirects from the site to the app.
func (b *browser) stay() {
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
}

// get returns the answer, and its body.
func (b *browser) get(t *testing.T, to string) (*http.Response, string) {
	t.Helper()
	b.got = nil
	req, err := http.NewRequestWithContext(t.Context(), "GET", to, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// begun starts a login and returns where the server sends the browser back to.
func (b *browser) begun(t *testing.T, from string) string {
	t.Helper()
	b.stay()
	resp, _ := b.get(t, from)
	if resp.StatusCode != 302 {
		t.Fatalf("no login begins: %d", resp.StatusCode)
	}
	resp, body := b.get(t, resp.Header.Get("Location"))
	if resp.StatusCode != 302 {
		t.Fatalf("the server answers %d %s", resp.StatusCode, body)
	}
	return resp.Header.Get("Location")
}

const home = "https://shop.example"

func (b *browser) cookies() []*http.Cookie {
	return b.Jar.Cookies(&url.URL{Scheme: "https", Host: "shop.example", Path: "/"})
}

// loggedIn returns the cookies of a session.
func loggedIn(t *testing.T, s *oauth2server.Server) []*http.Cookie {
	t.Helper()
	b := newSite(t, s, optionsOf(s, nil)).browser(t)
	if resp, _ := b.get(t, home+"/"); resp.StatusCode != 200 {
		t.Fatalf("login: answer %d", resp.StatusCode)
	}
	return b.cookies()
}

func token(r *http.Request, header string) string {
	return strings.TrimPrefix(r.Header.Get(header), "Bearer ")
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]map[string]string{
		"plain":          nil,
		"other header":   {"authHeaderName": "x-token"},
		"no redirect":    {"redirectURL": "", "forceHTTPS": "true"}, // the server knows one
		"forced":         {"redirectURL": strings.Replace(oauth2server.Redirect, "https:", "http:", 1), "forceHTTPS": "true"},
		"not the path":   {"pathFilter": "^/orders"}, // to which the login returns
		"key of its own": {"cookieKey": ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := oauth2server.Start(t)
			b := newSite(t, s, optionsOf(s, more)).browser(t)
			header := "Authorization"
			if more["authHeaderName"] != "" {
				header = "X-Token"
			}
			b.Jar.SetCookies(&url.URL{Scheme: "https", Host: "shop.example", Path: "/"}, []*http.Cookie{{Name: "other", Value: "1"}})
			resp, body := b.get(t, home+"/orders/%2F7?a=b%20c&state=CA")
			if resp.StatusCode != 200 || body != "welcome" || resp.Request.URL.String() != home+"/orders/%2F7?a=b%20c&state=CA" {
				t.Fatalf("%d %q of %s", resp.StatusCode, body, resp.Request.URL)
			}
			form := s.Request(token(b.got, header))
			if form == nil || form.Get("code_verifier") == "" {
				t.Fatalf("arrived with %q, which was asked for with %v", b.got.Header, form)
			}
			if got := b.got.Header.Get("Cookie"); got != "other=1" {
				t.Errorf("arrived with the cookies %q", got)
			}
			for range 3 {
				if resp, _ := b.get(t, home+"/orders/8"); resp.StatusCode != 200 || len(b.got.Header[header]) != 1 {
					t.Errorf("answer %d, arrived with %q", resp.StatusCode, b.got.Header)
				}
			}
			if n := s.Asked(); n != 1 {
				t.Errorf("%d tokens, want one", n)
			}
			checkSeen(t, b.site)
		})
	}
}

// checkSeen holds that a browser never sees a secret, and that its cookies are
// safe.
func checkSeen(t *testing.T, s *site) {
	t.Helper()
	for _, resp := range s.seen {
		for name, values := range resp.Header {
			if strings.Contains(strings.Join(values, " "), "canary") {
				t.Errorf("%s: %q", name, values)
			}
		}
		for _, c := range resp.Cookies() {
			if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") ||
				c.MaxAge <= 0 || len(c.String()) > 4096 {
				t.Errorf("cookie %s", c)
			}
		}
	}
	if strings.Contains(s.log.String(), "canary") {
		t.Errorf("logged %q", s.log)
	}
}

// A browser may begin several logins at a time.
func TestTabs(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	b := newSite(t, s, optionsOf(s, nil)).browser(t)
	first, second := b.begun(t, home+"/one"), b.begun(t, home+"/two")
	for _, row := range [][2]string{{first, "/one"}, {second, "/two"}} {
		if resp, _ := b.get(t, row[0]); resp.StatusCode != 302 || resp.Header.Get("Location") != row[1] {
			t.Errorf("answer %d, to %q, want %q", resp.StatusCode, resp.Header.Get("Location"), row[1])
		}
	}
}

// set changes a parameter of a URL, of reads one.
func set(to, name, value string) string {
	u, _ := url.Parse(to)
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func of(to, name string) string {
	u, _ := url.Parse(to)
	return u.Query().Get(name)
}

// What returns from a login counts only where the login began, once, and as it
// was.
func TestForgedReturns(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	victim, attacker := newSite(t, s, optionsOf(s, nil)), newSite(t, s, optionsOf(s, nil))
	for name, row := range map[string]struct {
		forge func(t *testing.T, b *browser, back string) string
		want  int
	}{
		"as it was": {func(_ *testing.T, _ *browser, back string) string { return back }, 302},
		"other state": {func(_ *testing.T, _ *browser, back string) string {
			state := of(back, "state")
			return set(back, "state", state[1:]+state[:1])
		}, 400},
		"short state":  {func(_ *testing.T, _ *browser, back string) string { return set(back, "state", "AAAA") }, 400},
		"no such code": {func(_ *testing.T, _ *browser, back string) string { return set(back, "code", "x") }, 400},
		"refused": {func(_ *testing.T, _ *browser, back string) string {
			return set(set(back, "code", ""), "error", "access_denied")
		}, 403},
		"login of an attacker": {func(t *testing.T, _ *browser, _ string) string {
			return attacker.browser(t).begun(t, home+"/x")
		}, 400},
		"code of an attacker": {func(t *testing.T, _ *browser, back string) string {
			return set(back, "code", of(attacker.browser(t).begun(t, home+"/x"), "code"))
		}, 400},
		"code of another login": {func(t *testing.T, b *browser, back string) string {
			return set(back, "code", of(b.begun(t, home+"/y"), "code"))
		}, 400},
		"replayed": {func(t *testing.T, b *browser, back string) string {
			if resp, _ := b.get(t, back); resp.StatusCode != 302 {
				t.Errorf("first: %d", resp.StatusCode)
			}
			return back
		}, 400},
		"session in place of a state": {func(t *testing.T, _ *browser, back string) string {
			for _, c := range loggedIn(t, s) {
				if sealed, found := strings.CutPrefix(c.Value, "1."); found {
					return set(back, "state", sealed)
				}
			}
			return back
		}, 400},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: they share the sites
			b := victim.browser(t)
			resp, body := b.get(t, row.forge(t, b, b.begun(t, home+"/orders")))
			if resp.StatusCode != row.want || b.got != nil || strings.Contains(body, "canary") {
				t.Errorf("answer %d %q, want %d; passed: %v", resp.StatusCode, body, row.want, b.got != nil)
			}
			if resp.StatusCode != 302 && len(resp.Cookies()) > 0 {
				t.Errorf("it gave %v", resp.Cookies())
			}
		})
	}
	checkSeen(t, victim)
}

// A cookie that was changed, or made elsewhere, is none.
func TestForgedCookies(t *testing.T) {
	t.Parallel()
	s, other := oauth2server.Start(t), oauth2server.Start(t)
	good := map[string]string{}
	for _, c := range loggedIn(t, s) {
		good[c.Name] = c.Value
	}
	const name = "__Host-penstock_oauth2"
	value := good[name]
	if value == "" {
		t.Fatalf("cookies %v", good)
	}
	ask := func(site *site, value string) bool {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header.Set("Cookie", name+"="+value)
		r.Header.Set("Authorization", "Bearer of the caller")
		passed := false
		w := httptest.NewRecorder()
		site.driver.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(w, r)
		if passed != (w.Code == 200) || !passed && w.Code != 302 {
			t.Errorf("%.40q: answer %d, passed: %v", value, w.Code, passed)
		}
		return passed
	}
	same := newSite(t, s, optionsOf(s, nil))
	if !ask(same, value) {
		t.Fatal("the cookie does not count at all")
	}
	for i := range value {
		b := []byte(value)
		if b[i] ^= 1; ask(same, string(b)) {
			t.Errorf("it counts with another byte %d", i)
		}
	}
	for _, v := range []string{"", ".", "1.", "1", "0." + value[2:], "2." + value[2:], "4." + value[2:], "-1." + value[2:], value[:len(value)/2], value + "AAAA"} {
		if ask(same, v) {
			t.Errorf("%.40q counts", v)
		}
	}
	for what, more := range map[string]map[string]string{
		"key": {"cookieKey": cookieKey + "2"}, "no key": {"cookieKey": ""}, "client": {"clientId": "other"}, "header": {"authHeaderName": "X-Other"},
		"server": {"tokenURL": other.URL + "/token"},
	} {
		if ask(newSite(t, s, optionsOf(s, more)), value) {
			t.Errorf("it counts for another %s", what)
		}
	}
}

// A login ends where it began, and nowhere else.
func TestWhereLoginsEnd(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	d := newSite(t, s, optionsOf(s, nil)).driver.(*driver)
	long := strings.Repeat("a", maxReturn)
	for uri, want := range map[string]string{
		"/a/b?c=d&e=%2F":              "/a/b?c=d&e=%2F",
		"//evil.example/a":            "/",
		"///evil.example":             "/",
		"/\\evil.example":             "/%5Cevil.example",
		"/%5Cevil.example":            "/%5Cevil.example",
		"/%2Fevil.example":            "/%2Fevil.example",
		"https://evil.example/a?b=c":  "/a?b=c",
		"https://evil.example":        "/",
		"https://evil.example//x.com": "/",
		"/a%0d%0aSet-Cookie:x":        "/a%0d%0aSet-Cookie:x",
		"/a?b=https://evil.example":   "/a?b=https://evil.example",
		"/" + long:                    "/",
		"/a?" + long:                  "/a",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		r.URL, r.RequestURI, r.Host = u, uri, "evil.example"
		if got := target(r); got != want {
			t.Errorf("%.40s ends at %.60q, want %q", uri, got, want)
		}
	}
	w := httptest.NewRecorder()
	if _, err := d.jar.begin(w, httptest.NewRequest("GET", "/", nil), "/"+long[1:]); err != nil {
		t.Fatal(err)
	}
}

// Logins and sessions end.
func TestTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, err := newJar(cookieKey, "c", false, "owner")
		if err != nil {
			t.Fatal(err)
		}
		answer := func(set func(w http.ResponseWriter) error) *http.Request {
			w := httptest.NewRecorder()
			if err := set(w); err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", "/", nil)
			for _, c := range w.Result().Cookies() {
				r.AddCookie(c)
			}
			return r
		}
		var l login
		begun := answer(func(w http.ResponseWriter) (err error) {
			l, err = j.begin(w, httptest.NewRequest("GET", "/", nil), "/a")
			return err
		})
		short := answer(func(w http.ResponseWriter) error {
			return j.keep(w, client.Grant{Header: "a b", Ends: time.Now().Add(time.Hour)})
		})
		long := answer(func(w http.ResponseWriter) error { return j.keep(w, client.Grant{Header: "a b"}) })
		counts := func() (n [3]bool) {
			_, n[0] = j.login(begun, l.state)
			_, n[1] = j.session(short)
			_, n[2] = j.session(long)
			return n
		}
		for _, row := range []struct {
			wait time.Duration
			want [3]bool
		}{
			{0, [3]bool{true, true, true}},
			{10*time.Minute - 2*time.Second, [3]bool{true, true, true}},
			{2 * time.Second, [3]bool{false, true, true}},
			{50*time.Minute - 2*time.Second, [3]bool{false, true, true}},
			{2 * time.Second, [3]bool{false, false, true}},
			{23 * time.Hour, [3]bool{false, false, false}},
		} {
			<-time.After(row.wait)
			if got := counts(); got != row.want {
				t.Errorf("after %v more: login, session, session without an end: %v, want %v", row.wait, got, row.want)
			}
		}
	})
}

// A session ends with a POST of the browser that has it.
func TestLogout(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	b := newSite(t, s, optionsOf(s, map[string]string{"logoutPath": "/bye"})).browser(t)
	if resp, _ := b.get(t, home+"/a"); resp.StatusCode != 200 {
		t.Fatalf("login: answer %d", resp.StatusCode)
	}
	post := func(c *http.Client, want int) *http.Response {
		t.Helper()
		resp, err := c.Post(home+"/bye", "text/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("answer %d, want %d", resp.StatusCode, want)
		}
		return resp
	}
	if resp := post(&http.Client{Transport: b.site}, 204); len(resp.Header["Set-Cookie"]) > 0 {
		t.Error("a form of another site takes the cookies back")
	}
	if resp, body := b.get(t, home+"/bye"); resp.StatusCode != 200 || body != "welcome" {
		t.Errorf("GET: answer %d %q", resp.StatusCode, body)
	}
	b.stay()
	post(b.Client, 204)
	for _, c := range b.cookies() {
		if !strings.HasSuffix(c.Name, "_login") {
			t.Errorf("cookie %s is still there", c.Name)
		}
	}
	if resp, _ := b.get(t, home+"/a"); resp.StatusCode != 302 {
		t.Errorf("after the end of the session: answer %d", resp.StatusCode)
	}
}

// A token that does not fit into one cookie takes more, up to a limit.
func TestLongTokens(t *testing.T) {
	t.Parallel()
	for length, want := range map[int]int{3000: 200, 7900: 200, 8100: 503} {
		s := oauth2server.Start(t)
		s.Odd(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"`+strings.Repeat("a", length)+`","token_type":"Bearer"}`)
		})
		b := newSite(t, s, optionsOf(s, nil)).browser(t)
		resp, body := b.get(t, home+"/x")
		if resp.StatusCode != want || want == 200 && len(token(b.got, "Authorization")) != length {
			t.Errorf("%d bytes: answer %d %q, want %d", length, resp.StatusCode, body, want)
		}
		checkSeen(t, b.site)
	}
}

// No token is no session, whatever the server does; and nothing that is secret is
// told to anybody.
func TestOddServers(t *testing.T) {
	t.Parallel()
	for name, odd := range map[string]http.HandlerFunc{
		"down":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"html":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>canary</html>") },
		"no token": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"canary"}`) },
		"echo":     func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400); io.Copy(w, r.Body) },
		"cut":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"client": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"invalid_client","error_description":"canary"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := oauth2server.Start(t)
			s.Odd(odd)
			b := newSite(t, s, optionsOf(s, nil)).browser(t)
			back := b.begun(t, home+"/x")
			for range 2 {
				resp, body := b.get(t, back)
				if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || b.got != nil || len(resp.Cookies()) != 0 || strings.Contains(body, "canary") {
					t.Errorf("answer %d %q, cookies %v", resp.StatusCode, body, resp.Cookies())
				}
			}
			if n := strings.Count(b.log.String(), "\n"); n != 1 {
				t.Errorf("%d lines in the log, want one: %s", n, b.log)
			}
			checkSeen(t, b.site)
		})
	}
}

// A server that does not answer holds a login up no longer than the browser waits.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	defer close(goOn)
	s.Odd(func(http.ResponseWriter, *http.Request) { close(began); <-goOn })
	b := newSite(t, s, optionsOf(s, nil)).browser(t)
	back := b.begun(t, home+"/x")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	r := httptest.NewRequest("GET", back, nil).WithContext(ctx)
	for _, c := range b.cookies() {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	b.driver.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != 503 || len(w.Result().Cookies()) != 0 {
		t.Errorf("answer %d, %v", w.Code, w.Result().Cookies())
	}
}

// No other spelling of a path gets around the login.
func TestPathFilter(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	site := newSite(t, s, optionsOf(s, map[string]string{"pathFilter": "/users/"}))
	for target, want := range map[string]int{
		"/users/1": 302, "/%75sers/1": 302, "/users%2F1": 302, "//users//1": 302, "/x/../users/1": 302, "/orders/1": 200, "/orders/1?p=/users/": 200,
		"/orders/1?state=a&code=b": 200, "/users/1?state=a&code=b": 400,
	} {
		w := httptest.NewRecorder()
		site.driver.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", target, w.Code, want)
		}
	}
}
