package http_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
)

// FuzzPaths sends request lines through the parser of net/http and the whole
// handler, with one API denied, and holds what it does against the bytes that
// were sent: what the log names is what was sent, no handler of the denied API is
// reached, and what a handler got is what stands in the path, decoded once.
func FuzzPaths(f *testing.F) {
	for _, row := range pathRows(f) {
		f.Add(row.method, row.target, "publish")
	}
	for _, s := range []string{
		"/v1.0/bindings/out", "/v1.0/bindings/o%75t", "/v1.0/bindings//out", "/v1.0/secrets/vault/db", "/v1.0/secrets/vault/bulk",
		"/v1.0/secrets/vault/a%2Fb", "/v1.0/secrets/vault/../vault/db", "/v1.0/shutdown", "/v1.0/shutdown/", "/v1.0/metadata/key",
		"/v1.0/invoke/http://u:p@h/method/x", "/v1.0/invoke/http:%2F%2fu:p%40h/method/x", "/v1.0/publish/bus/http://.@x", "/v1.0/invoke/http%3A%2F%2fu:p@h/method/x", "/v1.0/invoke/a:/b@c://d@e@f//g",
	} {
		for _, denied := range []string{"bindings", "secrets", "shutdown", "metadata", "publish", "publish/bulk", ""} {
			f.Add("GET", s, denied)
			f.Add("POST", s, denied)
		}
	}
	i, log := start(f), &lines{}
	a := api.New("shop", i)
	h := apihttp.New(a, apihttp.Options{Logger: slog.New(slog.NewJSONHandler(log, nil))})
	f.Fuzz(func(t *testing.T, method, target, denied string) {
		const body = `{"operation":"create","data":1}`
		raw := method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 31\r\n\r\n" + body
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil || r.RequestURI != target || r.Method != method {
			t.Skip() // no request, or another one than meant
		}
		a.SetSurface(api.Surface{
			Log:    api.CallLog{Enabled: true},
			Denied: []api.Rule{{Name: denied, Version: "v1.0", Protocol: "http"}},
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		sent, _, _ := strings.Cut(target, "?")
		checkLogged(t, log.take(), method, sent, r.URL)
		reached := reachedBy(t, i, w, method, sent)
		if reached != "" && strings.HasPrefix(reached, denied) {
			t.Fatalf("%s %q reached %s, which %q denies", method, target, reached, denied)
		}
	})
}

// checkLogged compares the line of the log with the bytes that were sent.
func checkLogged(t *testing.T, log, method, sent string, u *url.URL) {
	t.Helper()
	var line struct{ Msg, Method string }
	if err := json.Unmarshal([]byte(log), &line); err != nil || line.Msg != "HTTP API Called" {
		t.Fatalf("log %q: %v", log, err)
	}
	if u.Scheme != "" || u.Host != "" || len(method) > 200 || len(sent) > 200 || method == http.MethodConnect {
		return // refused, or cut
	}
	logged, ok := strings.CutPrefix(line.Method, method+" ")
	for n, c := range []byte(logged) {
		if c <= ' ' || c > '~' {
			t.Fatalf("log holds byte %d %q", n, c)
		}
	}
	// The same bytes, but for those that a path cannot hold and the users of URLs.
	if want := withoutUsers(escape(sent)); !ok || logged != want {
		t.Fatalf("logged %q, sent %q, want %q", line.Method, sent, want)
	}
}

// withoutUsers has *** for what stands before the last @ of a segment that follows
// one with a colon at its end.
func withoutUsers(path string) string {
	slash, colon := regexp.MustCompile(`(?i)(/|%2f)+`), regexp.MustCompile(`(?i)(:|%3a)$`)
	segments, between := slash.Split(path, -1), slash.FindAllString(path, -1)
	var b strings.Builder
	for i, s := range segments {
		if user := regexp.MustCompile(`^.*(@|%40)`).FindStringSubmatch(s); user != nil && i > 0 && colon.MatchString(segments[i-1]) {
			s = "***" + user[1] + s[len(user[0]):]
		}
		b.WriteString(s)
		if i < len(between) {
			b.WriteString(between[i])
		}
	}
	return b.String()
}

// escape writes as escapes what a path cannot hold; whatever else is there stays.
func escape(s string) string {
	var b bytes.Buffer
	for _, c := range []byte(s) {
		if c > ' ' && c <= '~' && !strings.ContainsRune("\"#<>?\\^`{|}", rune(c)) {
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(url.PathEscape(string([]byte{c}))))
		}
	}
	return b.String()
}

// reachedBy finds out by its effects which API a request reached, checks that
// this is the one whose path was sent, and makes the instance forget it.
func reachedBy(t *testing.T, i *instance, w *httptest.ResponseRecorder, method, sent string) (api string) {
	t.Helper()
	path := escape(sent)
	prefix := func(name string) string {
		rest, ok := strings.CutPrefix(path, "/v1.0/"+name)
		if !ok {
			t.Fatalf("%s %q reached %s", method, sent, name)
		}
		api = name
		return rest
	}
	if all := i.broker.all(); len(all) > 0 {
		_, topic, _ := strings.Cut(strings.TrimPrefix(prefix("publish"), "/"), "/")
		if want, err := url.PathUnescape(topic); err != nil || len(all) != 1 || all[0].topic != want {
			t.Fatalf("%s %q published to %v, want %q", method, sent, all, want)
		}
		i.broker.messages = nil
	}
	if len(i.output.calls) > 0 {
		if name, err := url.PathUnescape(prefix("bindings/")); err != nil || name != "out" {
			t.Fatalf("%s %q called the binding", method, sent)
		}
		i.output.calls = nil
	}
	select {
	case <-i.stopped:
		if prefix("shutdown") != "" || method != http.MethodPost {
			t.Fatalf("%s %q shuts down", method, sent)
		}
	default:
	}
	switch {
	case w.Header().Get("Cache-Control") == "no-store":
		prefix("secrets/")
	case w.Code == 200 && strings.Contains(w.Body.String(), "runtimeVersion"):
		prefix("metadata")
	case w.Code == 204 && api == "" && path != "/v1.0/healthz" && path != "/v1.0/healthz/outbound":
		prefix("metadata/")
	}
	return api
}
