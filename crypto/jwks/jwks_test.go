package jwks

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
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

	"github.com/go-jose/go-jose/v4"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/crypto/keys"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

// symmetric is a set with one key, whose bytes are all the same.
func symmetric(kid string, b byte) string {
	return fmt.Sprintf(`{"keys":[{"kty":"oct","kid":%q,"k":%q}]}`, kid, base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)))
}

func manyKeys(t *testing.T) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{KeyID: "rsa", Key: private},
		{KeyID: "kw", Key: bytes.Repeat([]byte{1}, 32)},
		{KeyID: "cbc 128", Key: bytes.Repeat([]byte{2}, 16)},
		{KeyID: "cbc/192", Key: bytes.Repeat([]byte{3}, 24)},
		{KeyID: "cbc256", Key: bytes.Repeat([]byte{4}, 32), Algorithm: "A256CBC-NOPAD"},
		{KeyID: "sign", Key: bytes.Repeat([]byte{4}, 32), Use: "sig"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// ways puts one set where the component can find it, in each way there is.
func ways(set string) map[string]func(t *testing.T) string {
	return map[string]func(t *testing.T) string{
		"inline": func(*testing.T) string { return "\n " + set },
		"base64": func(*testing.T) string { return base64.StdEncoding.EncodeToString([]byte(set)) },
		"file": func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "keys.json")
			write(t, path, set, time.Now())
			return path
		},
		"URL": func(t *testing.T) string {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set) }))
			t.Cleanup(s.Close)
			return s.URL
		},
	}
}

func write(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	set := manyKeys(t)
	for name, place := range ways(set) {
		t.Run(name, func(t *testing.T) {
			conform.Crypto(t, Component, conform.CryptoSetup{
				Options: func(t *testing.T) map[string]string { return map[string]string{"jwks": place(t)} },
				Wrong:   map[string]map[string]string{"requestTimeout": {"jwks": "{}", "requestTimeout": "soon"}},
				Keys: map[string]enc.Algorithm{
					"rsa": enc.RSAOAEP256, "kw": enc.A256KW, "cbc 128": enc.A128CBC, "cbc/192": enc.A192CBC, "cbc256": enc.A256CBC,
				},
				Unfit:   map[string]enc.Algorithm{"sign": enc.A256KW, "cbc256": enc.A256KW, "rsa": enc.A256CBC, "kw": enc.RSAOAEP256},
				Missing: []string{"none", "RSA", "kw "},
			})
		})
	}
}

func environment(log *bytes.Buffer) component.Env {
	return component.Env{Name: "keys", Logger: slog.New(slog.NewTextHandler(log, nil))}
}

// which tells by wrapping which of two sets is in use.
func which(t *testing.T, d interface {
	WrapKey(context.Context, string, enc.Algorithm, []byte) ([]byte, error)
},
) byte {
	t.Helper()
	fileKey := make([]byte, enc.FileKeySize)
	got, err := d.WrapKey(t.Context(), "k", enc.A256KW, fileKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []byte("12") {
		set, err := keys.ParseSet([]byte(symmetric("k", b)))
		if err != nil {
			t.Fatal(err)
		}
		if want, err := set["k"].Wrap(enc.A256KW, fileKey); err == nil && bytes.Equal(got, want) {
			return b
		}
	}
	return '?'
}

func TestChangedFile(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "keys.json")
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	write(t, path, symmetric("k", '1'), noon)
	d, err := open(t.Context(), environment(&log), options{JWKS: component.NewSecret(path)})
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		change func()
		want   byte
		warned int
	}{
		{func() {}, '1', 0},
		{func() { write(t, path, symmetric("k", '2'), noon.Add(time.Second)) }, '2', 0},
		{func() { write(t, path, `{"keys":`, noon.Add(2*time.Second)) }, '2', 1},
		{func() {}, '2', 1},
		{func() { _ = os.Remove(path) }, '2', 2},
		{func() {}, '2', 2},
		{func() { write(t, path, symmetric("k", '1'), noon.Add(3*time.Second)) }, '1', 2},
	}
	for i, step := range steps {
		step.change()
		if got, n := which(t, d), strings.Count(log.String(), "WARN"); got != step.want || n != step.warned {
			t.Errorf("step %d: set %c with %d warnings, want %c with %d\n%s", i, got, n, step.want, step.warned, log.String())
		}
	}
}

// server is a web server without a network, for a test with a clock of its own.
type server struct {
	mu     sync.Mutex
	answer string
	status int
	asked  atomic.Int64
}

func (s *server) set(status int, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.answer = status, answer
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := httptest.NewRecorder()
	w.WriteHeader(s.status)
	fmt.Fprint(w, s.answer)
	return w.Result(), nil
}

func TestRefreshOfAURL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{status: 200, answer: symmetric("k", '1')}
		w := &web{url: "http://keys.example/", timeout: time.Second, log: environment(&log).Logger, transport: s}
		if err := w.start(t.Context(), 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		d := &provider{w}
		pass := func(asked int64, want byte, warned int) {
			t.Helper()
			synctest.Wait()
			if got, n := which(t, d), strings.Count(log.String(), "WARN"); got != want || s.asked.Load() != asked || n != warned {
				t.Errorf("set %c after %d questions with %d warnings; want %c, %d, %d\n%s", got, s.asked.Load(), n, want, asked, warned, log.String())
			}
		}
		s.set(200, symmetric("k", '2'))
		<-time.After(9 * time.Minute)
		pass(1, '1', 0)
		<-time.After(time.Minute)
		pass(2, '2', 0)
		s.set(503, symmetric("k", '1'))
		<-time.After(30 * time.Minute)
		pass(5, '2', 1)
		s.set(200, "<html>")
		<-time.After(10 * time.Minute)
		pass(6, '2', 1)
		s.set(200, symmetric("k", '1'))
		<-time.After(10 * time.Minute)
		pass(7, '1', 1)
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		pass(7, '1', 1)
	})
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	big := filepath.Join(dir, "big.json")
	write(t, big, strings.Repeat(" ", maxSize+1), time.Now())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/slow":
			<-r.Context().Done()
		case "/big":
			fmt.Fprint(w, strings.Repeat(" ", maxSize+1))
		case "/page":
			fmt.Fprint(w, "<html>")
		case "/away":
			http.Redirect(w, r, "http://169.254.169.254/keys", http.StatusFound)
		}
	}))
	t.Cleanup(s.Close)
	rows := []struct {
		name, jwks, want string
		again            bool
	}{
		{"no file", filepath.Join(dir, "none.json"), "open key set", false},
		{"a folder", dir, "not a file", false},
		{"a big file", big, "more than 1048576 bytes", false},
		{"half a set", `{"keys":[`, "read key set", false},
		{"half a set in base64", base64.StdEncoding.EncodeToString([]byte(`{"keys":[`)), "read key set", false},
		{"no host", "https://", "no URL", false},
		{"a strange URL", "http://a b/", "no URL", false},
		{"a busy server", s.URL + "/busy", "answered 429", true},
		{"a slow server", s.URL + "/slow", "ask for key set", true},
		{"a long answer", s.URL + "/big", "more than", true},
		{"a web page", s.URL + "/page", "read key set", false},
		{"a redirect to a metadata service", s.URL + "/away", "link-local", false},
		{"nobody there", "http://127.0.0.1:1/", "ask for key set", true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d, err := open(t.Context(), environment(&bytes.Buffer{}), options{JWKS: component.NewSecret(row.jwks), RequestTimeout: 300 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), row.want) || fault.Retriable(err) != row.again {
				t.Fatalf("open: %v, %v (kind %v)", d, err, fault.KindOf(err))
			}
		})
	}
}
