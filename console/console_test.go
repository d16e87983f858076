package console_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/console"
	"github.com/penstock-io/penstock/fault"
)

const token = "a token for the tests"

// api counts what it is asked and tells it.
type api struct {
	calls atomic.Int64
	mu    sync.Mutex
	last  *http.Request
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.calls.Add(1)
	a.mu.Lock()
	a.last = r
	a.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/watch") {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"path": "`+r.URL.Path+`"}`)
}

func (a *api) lastHeader(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		return ""
	}
	return a.last.Header.Get(name)
}

func newConsole(t *testing.T, a http.Handler, ending <-chan struct{}) http.Handler {
	t.Helper()
	h, err := console.New(a, console.Options{Token: token, AppID: "shop", Version: "1", Ending: ending})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ask makes a request with a session's headers, none when s is nil.
func ask(h http.Handler, s http.Header, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:3580"+path, strings.NewReader(body))
	r.URL.Scheme, r.URL.Host = "", ""
	maps.Copy(r.Header, s)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func signIn(t *testing.T, h http.Handler, token string) http.Header {
	t.Helper()
	w := ask(h, http.Header{"Content-Type": {"application/json"}}, "POST", "/session", `{"token": "`+token+`"}`)
	if w.Code != http.StatusOK {
		t.Fatalf("sign in: %d %s", w.Code, w.Body)
	}
	return session(t, w)
}

// session reads the headers of a session from the answer that opened it.
func session(t *testing.T, w *httptest.ResponseRecorder) http.Header {
	t.Helper()
	var told struct{ Key, AppID string }
	if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || told.AppID != "shop" {
		t.Fatalf("session: %v, %s", err, w.Body)
	}
	c := w.Result().Cookies()[0]
	return http.Header{"Cookie": {c.Name + "=" + c.Value}, "Penstock-Console": {told.Key}}
}

func TestSessionEndsAndIsRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newConsole(t, &api{}, nil)
		s := signIn(t, h, token)
		<-time.After(console.SessionLife - time.Minute)
		w := ask(h, s, "GET", "/session", "")
		renewed := session(t, w)
		<-time.After(2 * time.Minute)
		if w := ask(h, s, "GET", "/v1.0/metadata", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("the old session: %d, want 401", w.Code)
		}
		if w := ask(h, renewed, "GET", "/v1.0/metadata", ""); w.Code != http.StatusOK {
			t.Errorf("the renewed session: %d, want 200", w.Code)
		}
	})
}

func TestSessionOutlivesAStartWithTheSameToken(t *testing.T) {
	t.Parallel()
	s := signIn(t, newConsole(t, &api{}, nil), token)
	if w := ask(newConsole(t, &api{}, nil), s, "GET", "/v1.0/metadata", ""); w.Code != http.StatusOK {
		t.Errorf("with the same token: %d, want 200", w.Code)
	}
	other, err := console.New(&api{}, console.Options{Token: token + "2"})
	if err != nil {
		t.Fatal(err)
	}
	if w := ask(other, s, "GET", "/v1.0/metadata", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("with another token: %d, want 401", w.Code)
	}
}

func TestTamperedSessions(t *testing.T) {
	t.Parallel()
	h := newConsole(t, &api{}, nil)
	s := signIn(t, h, token)
	name, value, _ := strings.Cut(s.Get("Cookie"), "=")
	for what, cookie := range map[string]string{
		"another end": name + "=" + value[:6] + "____" + value[10:], "cut": name + "=" + value[:len(value)-1], "empty": name + "=",
		"other port": "penstock-console-1=" + value, "no base64": name + "=!",
	} {
		bad := s.Clone()
		bad.Set("Cookie", cookie)
		if w := ask(h, bad, "GET", "/v1.0/metadata", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", what, w.Code)
		}
	}
	other := signIn(t, h, token)
	s.Set("Penstock-Console", other.Get("Penstock-Console"))
	if w := ask(h, s, "GET", "/v1.0/metadata", ""); w.Code != http.StatusForbidden {
		t.Errorf("the key of another session: %d, want 403", w.Code)
	}
}

func TestOnlyWhatDescribesTheBodyIsPassedOn(t *testing.T) {
	t.Parallel()
	a := &api{}
	h := newConsole(t, a, nil)
	s := signIn(t, h, token)
	s["Content-Type"], s["Accept"] = []string{"application/json"}, []string{"application/x-ndjson"}
	s["Dapr-App-Id"], s["Dapr-Api-Token"], s["Traceparent"] = []string{"other"}, []string{"x"}, []string{"y"}
	if w := ask(h, s, "POST", "/v1.0-penstock/deadletters/replay", `{"all": true}`); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := a.last.Header; len(got) != 2 || got.Get("Accept") == "" || got.Get("Content-Type") == "" {
		t.Errorf("passed on: %v", got)
	}
}

// TestStateIsReadOnlyUnlessAllowed asks for each change of state with and without
// leave. What is no key of a store is no change of state: it stays unknown.
func TestStateIsReadOnlyUnlessAllowed(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{false, true} {
		a := &api{}
		h, err := console.New(a, console.Options{Token: token, AppID: "shop", WriteState: allow})
		if err != nil {
			t.Fatal(err)
		}
		s := signIn(t, h, token)
		s.Set("If-Match", `"7"`)
		for _, tt := range []struct {
			method, path string
			always       int // zero: as allowed
		}{
			{"POST", "/v1.0/state/store", 0},
			{"DELETE", "/v1.0/state/store/k", 0},
			{"GET", "/v1.0/state/store/k", http.StatusOK},
			{"POST", "/v1.0/state/store/transaction", http.StatusNotFound},
			{"POST", "/v1.0/state/store/bulk", http.StatusNotFound},
			{"PUT", "/v1.0/state/store", http.StatusNotFound},
			{"DELETE", "/v1.0/state/store", http.StatusNotFound},
			{"DELETE", "/v1.0/state/store/a/b", http.StatusNotFound},
			{"DELETE", "/v1.0/state/store/%2e%2e", http.StatusNotFound},
		} {
			want := tt.always
			if want == 0 && allow {
				want = http.StatusOK
			} else if want == 0 {
				want = http.StatusForbidden
			}
			before := a.calls.Load()
			if w := ask(h, s, tt.method, tt.path, "[]"); w.Code != want {
				t.Errorf("allowed %t: %s %s: %d, want %d: %s", allow, tt.method, tt.path, w.Code, want, w.Body)
			}
			if asked := a.calls.Load() > before; asked != (want == http.StatusOK) {
				t.Errorf("allowed %t: %s %s: the API was asked: %t", allow, tt.method, tt.path, asked)
			} else if got := a.lastHeader("If-Match"); asked && (got != "") != (tt.always == 0) {
				t.Errorf("%s %s: the API got the ETag %q", tt.method, tt.path, got)
			}
		}
	}
}

func TestPagesShareAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		h := newConsole(t, a, nil)
		s := signIn(t, h, token)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if w := ask(h, s, "GET", "/v1.0-penstock/routes?window=10s", ""); !strings.Contains(w.Body.String(), "/routes") {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			})
		}
		wg.Wait()
		if n := a.calls.Load(); n != 1 {
			t.Errorf("10 pages made %d calls, want 1", n)
		}
		<-time.After(time.Second)
		ask(h, s, "GET", "/v1.0-penstock/routes?window=10s", "")
		if n := a.calls.Load(); n != 2 {
			t.Errorf("a second later there were %d calls, want 2", n)
		}
	})
}

func TestWatchersEndWithPenstock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ending := make(chan struct{})
		h := newConsole(t, &api{}, ending)
		s := signIn(t, h, token)
		done := make(chan struct{})
		go func() {
			defer close(done)
			ask(h, s, "GET", "/v1.0-penstock/events/watch", "")
		}()
		synctest.Wait()
		close(ending)
		<-done // else the bubble is deadlocked
	})
}

func TestPageIsNotModified(t *testing.T) {
	t.Parallel()
	h := newConsole(t, &api{}, nil)
	w := ask(h, nil, "GET", "/", "")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		t.Fatalf("%d %s", w.Code, w.Header())
	}
	again := ask(h, http.Header{"If-None-Match": {w.Header().Get("ETag")}}, "GET", "/", "")
	if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("%d with %d bytes, want 304 with none", again.Code, again.Body.Len())
	}
	if w := ask(h, nil, "POST", "/", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, want 405", w.Code)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first, err := console.Token("", dir)
	if err != nil || len(first) < console.MinToken {
		t.Fatalf("%q, %v", first, err)
	}
	if second, err := console.Token("", dir); second != first || err != nil {
		t.Errorf("the second time it is %q, %v, want %q", second, err, first)
	}
	name := filepath.Join(dir, console.TokenFile)
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if fresh, err := console.Token("", dir); fault.KindOf(err) != fault.Denied || fresh == first || len(fresh) < console.MinToken {
		t.Errorf("a file that others can read: %q, %v", fresh, err)
	}
	if given, err := console.Token(token, dir); given != token || err != nil {
		t.Errorf("a given one is %q, %v", given, err)
	}
	if _, err := console.Token("short", dir); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a short one: %v", err)
	}
	if _, err := console.New(&api{}, console.Options{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("none: %v", err)
	}
}
