package uppercase

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	for direction, changes := range map[string][2]bool{"request": {true, false}, "response": {false, true}, "both": {true, true}} {
		t.Run(direction, func(t *testing.T) {
			setup := conform.MiddlewareSetup{
				Options: func(*testing.T) map[string]string { return map[string]string{"direction": direction} },
				Wrong:   map[string]map[string]string{"direction": {"direction": "up"}},
				Pass: func(*testing.T, map[string]string) *http.Request {
					return httptest.NewRequest("POST", "/v1.0/publish/bus/t", nil)
				},
			}
			if changes[0] {
				setup.Sent = strings.ToUpper
			}
			if changes[1] {
				setup.Answered = strings.ToUpper
			}
			conform.Middleware(t, Component, setup)
		})
	}
}

func open1(t *testing.T, direction string) middleware.Driver {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{}, []config.Item{{Name: "direction", Value: direction}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(middleware.Driver)
}

// Letters may come in halves, and bytes that are no letters stay.
func TestOddBodies(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ in, want string }{
		"empty":       {"", ""},
		"halves":      {"aäß€😀z", "AÄß€😀Z"},
		"no utf-8":    {"a\xff\xc3b", "A\xff\xc3B"},
		"half at end": {"ab\xe2\x82", "AB\xe2\x82"},
		"longer":      {"ɐ", "Ɐ"}, // two bytes become three
		"replacement": {"�", "�"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := open1(t, "both").Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ContentLength >= 0 || r.Header.Get("Content-Length") != "" {
					t.Error("a length is announced")
				}
				body, err := io.ReadAll(iotest.OneByteReader(r.Body))
				if err != nil || string(body) != row.want {
					t.Errorf("sent %q, %v, want %q", body, err, row.want)
				}
				w.Header().Set("Content-Length", "1")
				for i := range len(row.in) {
					if n, err := w.Write([]byte{row.in[i]}); n != 1 || err != nil {
						t.Errorf("wrote %d, %v", n, err)
					}
				}
			}))
			r := httptest.NewRequest("POST", "/x", iotest.HalfReader(strings.NewReader(row.in)))
			r.Header.Set("Content-Length", "7")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Body.String() != row.want || (row.in != "" && w.Header().Get("Content-Length") != "") {
				t.Errorf("answered %q, length %q", w.Body, w.Header().Get("Content-Length"))
			}
		})
	}
}

// What has arrived is not held back until there is more.
func TestLettersAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	defer in.Close()
	h := open1(t, "request").Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for _, text := range []string{"hello", "you"} {
			go out.Write([]byte(text))
			got := make([]byte, 0, 5)
			for len(got) < len(text) {
				var room [16]byte
				n, err := r.Body.Read(room[:])
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, room[:n]...)
			}
			if string(got) != strings.ToUpper(text) {
				t.Errorf("got %q", got)
			}
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/x", in))
}
