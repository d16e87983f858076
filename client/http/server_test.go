package http

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/fault"
)

func server(t *testing.T, f http.HandlerFunc) *Server {
	t.Helper()
	h := httptest.NewServer(f)
	t.Cleanup(h.Close)
	s, err := NewServer(h.URL+"/base/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestServerCall(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Saw", strings.Join([]string{r.Method, r.URL.RequestURI(), r.Header.Get("X-Token"), r.Header.Get("Content-Type"), string(body)}, " "))
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte("answer"))
	})
	for want, c := range map[string]Call{
		"GET /base/a%2Fb?c=d t":                 {Path: "/a%2Fb?c=d", Header: http.Header{"X-Token": {"t"}}},
		`PUT /base/x  application/json {"a":1}`: {Method: "PUT", Path: "/x", Body: map[string]int{"a": 1}},
	} {
		a, err := s.Do(t.Context(), c)
		if err != nil || a.Status != http.StatusTeapot || string(a.Body) != "answer" || a.Header.Get("X-Saw") != want {
			t.Errorf("%+v, %v, want %q", a, err, want)
		}
	}
}

func TestServerErrors(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/long":
			for range answerLimit/1024 + 1 {
				_, _ = w.Write(make([]byte, 1024))
			}
		case "/base/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x"))
		case "/base/elsewhere":
			http.Redirect(w, r, "/base/long", http.StatusFound)
		}
	})
	if _, err := s.Do(t.Context(), Call{Path: "/long"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("long: %v", err)
	}
	if _, err := s.Do(t.Context(), Call{Path: "/cut?canary"}); fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), "canary") {
		t.Errorf("cut: %v", err)
	}
	if a, err := s.Do(t.Context(), Call{Path: "/elsewhere"}); err != nil || a.Status != http.StatusFound {
		t.Errorf("redirect: %+v, %v", a, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Do(ended, Call{Path: "/canary"}); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("ended: %v", err)
	}
	if _, err := s.Do(t.Context(), Call{Method: "bad method"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("method: %v", err)
	}
}

func TestServerAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "vault:8200", "ftp://x", "http://", "https://user:canary@host", "https://host?x=y", "https://host/#f", "http://[::1"} {
		if _, err := NewServer(address, Options{}); fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", address, err)
		}
	}
	gone, err := NewServer("http://127.0.0.1:1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Do(t.Context(), Call{Path: "/canary"}); fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), gone.Host()) {
		t.Errorf("gone: %v", err)
	}
}
