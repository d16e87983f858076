package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestDoctorAsksTheApp(t *testing.T) {
	for name, row := range map[string]struct {
		status   int
		body     string
		protocol string
		want     string // status and the begin of the text
	}{
		"a list":               {200, `[{"pubsubname":"bus","topic":"orders"},{"pubsubname":"bus","topic":"more"}]`, "", "ok the app at ADDRESS answers and asks for 2 subscriptions"},
		"nothing":              {200, "", "http", "ok the app at ADDRESS answers and asks for 0 subscriptions"},
		"no list":              {200, "<html>", "", "warn the app at ADDRESS answers GET /dapr/subscribe with what is no list"},
		"not there":            {404, "", "", "ok the app at ADDRESS answers; it has no GET /dapr/subscribe"},
		"somewhere else":       {302, "", "", "ok the app at ADDRESS answers; it has no GET /dapr/subscribe"},
		"a token is wanted":    {401, "", "", "broken the app at ADDRESS answers GET /dapr/subscribe with 401"},
		"trouble":              {500, "", "", "broken the app at ADDRESS answers GET /dapr/subscribe with 500"},
		"another protocol":     {200, "", "gRPC", "ok something listens at ADDRESS, for grpc"},
		"it hangs":             {0, "", "", "broken something listens at ADDRESS and gives no answer over HTTP"},
		"it says no HTTP":      {-1, "", "", "broken something listens at ADDRESS and gives no answer over HTTP"},
		"the answer is cut":    {-2, "", "", "broken the answer to GET /dapr/subscribe breaks off"},
		"its token is checked": {-3, "", "", "ok the app at ADDRESS answers and asks for 0 subscriptions"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("APP_API_TOKEN", "the-token")
			s := httptest.NewServer(appOf(row.status, row.body))
			defer s.Close()
			address := s.Listener.Addr().String()
			c := &doctorCommand{AppProtocol: row.protocol, Timeout: 10 * time.Second}
			if row.status == 0 {
				c.Timeout = 100 * time.Millisecond
			}
			p := &patient{doctorCommand: c}
			p.greetApp(t.Context(), address)
			if len(p.findings) != 1 {
				t.Fatalf("found %v", p.findings)
			}
			f := p.findings[0]
			if got := f.Status + " " + f.Text; !strings.HasPrefix(got, strings.ReplaceAll(row.want, "ADDRESS", address)) {
				t.Errorf("found %q", got)
			}
			if (f.Status == sound) != (f.Do == "") {
				t.Errorf("%s: what to do is %q", f.Status, f.Do)
			}
		})
	}
}

// appOf is an app that answers with a status, or in the way that one below 1 stands
// for.
func appOf(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch status {
		case 0:
			<-r.Context().Done()
		case -1:
			raw(w, "220 mail.example ESMTP\r\n")
		case -2:
			raw(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")
		case -3:
			if r.Header.Get("dapr-api-token") != "the-token" || r.URL.Path != "/dapr/subscribe" {
				w.WriteHeader(http.StatusForbidden)
			}
		default:
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
}

// raw answers with bytes.
func raw(w http.ResponseWriter, text string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
}
