package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/fault"
	msg "github.com/penstock-io/penstock/invoke/message"
)

func call(path string, body io.Reader) *msg.Request {
	return &msg.Request{Verb: "POST", Path: path, Query: "q=1", Header: http.Header{"X-A": {"1"}}, Body: io.NopCloser(body), Length: -1}
}

// A method that is called passes the pipeline, which may change everything, and
// both bodies go through it piece by piece.
func TestInvokeThroughThePipeline(t *testing.T) {
	t.Parallel()
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/other%2Fway?q=1" || r.Header.Get("Added") != "yes" || r.Header.Get("Dapr-Api-Token") != "token" {
			t.Errorf("the app got %s %v", r.RequestURI, r.Header)
		}
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusAccepted)
		control := http.NewResponseController(w)
		if err := errors.Join(control.EnableFullDuplex(), control.Flush()); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = control.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("X-Sum", "5")
	})
	p := piped(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		out := r.Clone(r.Context())
		out.Header.Set("Added", "yes")
		out.URL.Path, out.URL.RawPath, out.URL.Host = "/other/way", "/other%2Fway", "evil.example"
		w.Header().Set("X-From", r.URL.EscapedPath())
		next.ServeHTTP(w, out)
	})
	c := channel(t, at, Options{Token: "token", Pipeline: p})
	read, write := io.Pipe()
	answer, err := c.Invoke(t.Context(), call("a%2Fb", read))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusAccepted || answer.Header.Get("X-From") != "/a%2Fb" || answer.Header.Get("Trailer") != "" {
		t.Errorf("%d %v", answer.Status, answer.Header)
	}
	buf := make([]byte, 100)
	for _, piece := range []string{"one", "two"} { // the next goes out when the last has come back
		if _, err := io.WriteString(write, piece); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(answer.Body, buf[:len(piece)]); err != nil || string(buf[:n]) != piece {
			t.Fatalf("came back %q, %v", buf[:n], err)
		}
	}
	write.Close()
	rest, err := io.ReadAll(answer.Body)
	if err != nil || len(rest) > 0 || answer.Trailer.Get("X-Sum") != "5" {
		t.Errorf("rest %q, %v, trailer %v", rest, err, answer.Trailer)
	}
	answer.Body.Close()
}

func TestInvokeThatThePipelineEnds(t *testing.T) {
	t.Parallel()
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/breaks") {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
	})
	p := piped(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/refused"):
			http.Error(w, "no", http.StatusForbidden)
		case strings.HasPrefix(r.URL.Path, "/panics"):
			panic("oops")
		case strings.HasPrefix(r.URL.Path, "/silent"):
		default:
			if strings.HasPrefix(r.URL.Path, "/bent") {
				r.URL.Path, r.URL.RawPath = "/a/../b", ""
			}
			next.ServeHTTP(w, r)
		}
	})
	c := channel(t, at, Options{Pipeline: p})
	for path, want := range map[string]string{"refused": "403 no\n", "silent": "200 "} {
		answer, err := c.Invoke(t.Context(), call(path, strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if got := http.StatusText(answer.Status); err != nil || want != map[string]string{"Forbidden": "403 ", "OK": "200 "}[got]+string(body) {
			t.Errorf("%s: %d %q %v", path, answer.Status, body, err)
		}
	}
	for path, kind := range map[string]fault.Kind{"panics": fault.Internal, "bent": fault.Invalid} {
		if _, err := c.Invoke(t.Context(), call(path, strings.NewReader("x"))); fault.KindOf(err) != kind {
			t.Errorf("%s: %v, want kind %v", path, err, kind)
		}
	}
	answer, err := c.Invoke(t.Context(), call("breaks", strings.NewReader("x")))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(answer.Body); err == nil || string(body) != "half" {
		t.Errorf("an answer that breaks off: %q, %v", body, err)
	}
	answer.Body.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Invoke(ctx, call("hangs", strings.NewReader("x"))); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}
