package wasm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
)

// built is the guest of testdata, as a module. It is no Go file there, since no
// tool for this machine can make sense of it.
var built = sync.OnceValues(func() ([]byte, error) {
	source, err := os.ReadFile("testdata/guest.go.txt")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "penstock-guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, data := range map[string][]byte{"main.go": source, "go.mod": []byte("module guest\n\ngo 1.26\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags", "-s -w", "-o", "guest.wasm", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(filepath.Join(dir, "guest.wasm"))
})

// tiny is a guest of a few bytes with that many pages of memory. It lets
// everything pass.
func tiny(pages byte) []byte {
	section := func(id byte, content ...byte) []byte { return append([]byte{id, byte(len(content))}, content...) }
	export := func(name string, kind, index byte) []byte {
		return append(append([]byte{byte(len(name))}, name...), kind, index)
	}
	return slices.Concat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 0, 1, i64, 0x60, 2, i32, i32, 0), // the types of the two functions
		section(3, 2, 0, 1),
		section(5, 1, 0, pages),
		section(7, slices.Concat([]byte{3}, export("memory", 2, 0), export("handle_request", 0, 0), export("handle_response", 0, 1))...),
		section(10, 2, 4, 0, 0x42, 1, 0x0b, 2, 0, 0x0b), // i64.const 1, and nothing
	)
}

// file returns options with a file that holds a module.
func file(t *testing.T, module []byte, more map[string]string) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest.wasm")
	if err := os.WriteFile(path, module, 0o600); err != nil {
		t.Fatal(err)
	}
	o := map[string]string{"url": "file://" + path, "guestConfig": `{"a": "b"}`}
	maps.Copy(o, more)
	return o
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	wrong := func(name, value string) map[string]string {
		return map[string]string{"url": "file://guest.wasm", name: value}
	}
	conform.Middleware(t, Component, conform.MiddlewareSetup{
		Options: func(t *testing.T) map[string]string { return file(t, tiny(1), nil) },
		Wrong: map[string]map[string]string{
			"url": {"url": "guest.wasm"}, "memoryLimit": wrong("memoryLimit", "2Gi"), "timeout": wrong("timeout", "0s"), "maxInstances": wrong("maxInstances", "0"),
		},
		Pass: func(*testing.T, map[string]string) *http.Request {
			return httptest.NewRequest("POST", "/v1.0/publish/bus/t", nil)
		},
	})
}

// request is one that the guest does something with.
func request(do, body string) *http.Request {
	r := httptest.NewRequest("POST", "/a%2Fb?c=d", strings.NewReader(body))
	r.Header.Set("Do", do)
	return r
}

// opened is a middleware, and what it logs.
type opened struct {
	middleware.Driver
	log *lines
}

// lines are those of a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func open1(t *testing.T, options map[string]string) (opened, error) {
	t.Helper()
	return openBeside(t, nil, options)
}

// openBeside opens a middleware beside others.
func openBeside(t *testing.T, shared *component.Shared, options map[string]string) (opened, error) {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	log := &lines{}
	env := component.Env{Shared: shared, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		return opened{}, err
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return opened{d.(middleware.Driver), log}, nil
}

func guest1(t *testing.T, more map[string]string) opened {
	t.Helper()
	module, err := built()
	if err != nil {
		t.Fatal(err)
	}
	o, err := open1(t, file(t, module, more))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// echo answers with what arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		body = []byte(err.Error())
	}
	w.Header().Set("Got", r.Method+" "+r.RequestURI+" "+middleware.Path(r.URL)+" "+strings.Join(r.Header.Values("Added"), ",")+" "+r.Header.Get("Gone")+" "+r.Header.Get("Seen"))
	w.Header().Set("Body", string(body))
	w.Header().Set("Length", http.StatusText(200)[:0]+r.Header.Get("Content-Length"))
	w.Header().Set("Content-Length", "6")
	w.WriteHeader(202)
	_, _ = io.WriteString(w, "answer")
}

// ask sends a request through the guest.
func (o opened) ask(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	o.Wrap(http.HandlerFunc(echo)).ServeHTTP(w, r)
	return w
}

// A guest is compiled once for all that it can do: that takes a second.
func TestGuest(t *testing.T) {
	t.Parallel()
	o := guest1(t, nil)
	for name, run := range map[string]func(*testing.T, opened){
		"tells": tells, "changes": changes, "fails": fails, "fails late": failsLate, "long bodies": longBodies,
	} {
		t.Run(name, func(t *testing.T) { run(t, o) })
	}
}

// tells holds that a guest can read all of a request, and answer itself.
func tells(t *testing.T, o opened) {
	r := request("tell", "")
	r.Header["Twice"] = []string{"1", "2"}
	w := o.ask(r)
	want := "POST\n/a%2Fb?c=d\nHTTP/1.1\n192.0.2.1:1234\n{\"a\": \"b\"}\ndo,host,twice\n1,2\n\nexample.com\n"
	if w.Code != 201 || w.Body.String() != want || w.Header().Get("Content-Type") != "text/plain" || strings.Join(w.Header()["Many"], ",") != "1,2" {
		t.Errorf("answer %d %v %q, want %q", w.Code, w.Header(), w.Body, want)
	}
	for _, text := range []string{"level=INFO msg=\"A guest says\" text=told", "level=DEBUG msg=\"A guest says\" text=quietly", "to the standard error"} {
		if !o.log.has(text) {
			t.Errorf("the log lacks %q: %s", text, &o.log.text)
		}
	}
}

// changes holds that a guest can change a request and the answer to it.
func changes(t *testing.T, o opened) {
	for name, row := range map[string]struct {
		do, body  string
		status    int
		got, sent string // what arrived
		answer    string
		header    map[string]string
	}{
		"nothing":    {"pass", "body", 202, "POST /a%2Fb?c=d /a%2Fb  here ", "body", "answer", map[string]string{"Length": "4", "Content-Length": "6"}},
		"request":    {"change", "body", 202, "PUT /other/%2Fpath?x=%20y /other/%2Fpath one,two  ", "body", "answer", map[string]string{"Early": "yes"}},
		"keeps body": {"body", "a body of some length", 202, "POST /a%2Fb?c=d /a%2Fb  here a body of some length", "a body of some length", "answer", nil},
		"no body":    {"body", "", 202, "POST /a%2Fb?c=d /a%2Fb  here ", "", "answer", nil},
		"takes body": {"take body", "body", 202, "POST /a%2Fb?c=d /a%2Fb  here body", "", "answer", map[string]string{"Length": ""}},
		"new body":   {"new body", "body", 202, "POST /a%2Fb?c=d /a%2Fb  here ", "BODY!", "answer", map[string]string{"Length": ""}},
		"answer":     {"answer", "body", 203, "POST /a%2Fb?c=d /a%2Fb  here ", "body", "ANSWER", map[string]string{"Etag": "1", "Content-Length": ""}},
		"held":       {"answer as it was", "body", 202, "POST /a%2Fb?c=d /a%2Fb  here ", "body", "answer", map[string]string{"Content-Length": "6"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := request(row.do, row.body)
			r.Header.Set("Gone", "here")
			r.Header.Set("Content-Length", "4")
			w := o.ask(r)
			if w.Code != row.status || w.Header().Get("Got") != row.got || w.Header().Get("Body") != row.sent || w.Body.String() != row.answer {
				t.Errorf("answer %d %q, arrived %q with %q", w.Code, w.Body, w.Header().Get("Got"), w.Header().Get("Body"))
			}
			for name, want := range row.header {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// fails holds that a guest which does what it must not costs its own request: it
// does not get through, nothing of what the guest wrote is sent, and the next one
// is served.
func fails(t *testing.T, o opened) {
	for do, status := range map[string]int{
		"panic": 500, "panic after writing": 500, "hoard": 500, "out of memory bounds": 500, "no uri": 500, "status": 500,
		"header": 500, "header name": 500, "host header": 500, "headers": 500, "long answer": 500, "body kind": 500, "nothing to read into": 500,
	} {
		o.costs(t, do, status)
	}
	if !o.log.has("A guest failed") {
		t.Error("nothing is logged")
	}
}

func (o opened) costs(t *testing.T, do string, status int) {
	t.Helper()
	w := o.ask(request(do, "body"))
	if w.Code != status || w.Header().Get("Got") != "" || w.Header().Get("Half") != "" || w.Body.String() != http.StatusText(status) {
		t.Errorf("%s: answer %d %v %q, want %d", do, w.Code, w.Header(), w.Body, status)
	}
	if w := o.ask(request("answer", "body")); w.Code != 203 {
		t.Fatalf("%s: the next answer is %d %q", do, w.Code, w.Body)
	}
}

// failsLate holds that a guest which fails when the answer is out cannot take it
// back.
func failsLate(t *testing.T, o opened) {
	for _, do := range []string{"late status", "late panic"} {
		if w := o.ask(request(do, "body")); w.Code != 202 || w.Body.String() != "answer" {
			t.Errorf("%s: answer %d %q", do, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if recover() != http.ErrAbortHandler {
				t.Error("the panic of whoever comes next is lost")
			}
		}()
		o.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })).ServeHTTP(w, request("answer", ""))
	}()
	if !o.log.has("failed: answer") {
		t.Error("the guest was not told of the panic")
	}
}

// longBodies holds that what a guest keeps of a body is bounded, both ways.
func longBodies(t *testing.T, o opened) {
	if w := o.ask(request("body", strings.Repeat("a", maxBody+1))); w.Code != 413 {
		t.Errorf("a long body: answer %d", w.Code)
	}
	w := httptest.NewRecorder()
	o.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, maxBody))
		if _, over := w.Write([]byte{1}); err != nil || fault.KindOf(over) != fault.Exhausted {
			t.Errorf("wrote %v, %v", err, over)
		}
	})).ServeHTTP(w, request("answer as it was", ""))
	if w.Code != 500 {
		t.Errorf("a long answer: answer %d", w.Code)
	}
}

// A guest has its time and no more, and so does a request that waits for one.
func TestTimes(t *testing.T) {
	t.Parallel()
	o := guest1(t, map[string]string{"timeout": "1s", "maxInstances": "2"})
	for name, run := range map[string]func(*testing.T, opened){"busy": busy, "slow": slow, "slow body": slowBody} {
		t.Run(name, func(t *testing.T) { run(t, o) })
	}
}

func slow(t *testing.T, o opened) {
	o.costs(t, "loop", 504)
	o.costs(t, "sleep", 504)
	if w := o.ask(request("late loop", "body")); w.Code != 202 || w.Body.String() != "answer" {
		t.Errorf("late: answer %d %q", w.Code, w.Body)
	}
}

// busy holds that instances are bounded.
func busy(t *testing.T, o opened) {
	inside, goOn := make(chan struct{}), make(chan struct{})
	h := o.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside <- struct{}{}; <-goOn }))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), request("pass", "")) })
		<-inside
	}
	if w := o.ask(request("pass", "")); w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("answer %d", w.Code)
	}
	close(goOn)
	wg.Wait()
	if w := o.ask(request("pass", "")); w.Code != 202 {
		t.Errorf("afterwards: answer %d", w.Code)
	}
	if p := o.Driver.(*driver).pool; len(p.idle) != 2 || p.used != 0 {
		t.Errorf("%d idle, %d used", len(p.idle), p.used)
	}
}

// slowBody holds that a body which does not come holds a guest for its time at
// most.
func slowBody(t *testing.T, o opened) {
	s := httptest.NewServer(o.Wrap(http.HandlerFunc(echo)))
	t.Cleanup(s.Close)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nDo: body\r\nContent-Length: 100\r\n\r\nsome"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 504" {
		t.Errorf("answered %q, %v", head, err)
	}
	if w := o.ask(request("body", "x")); w.Code != 202 {
		t.Errorf("afterwards: answer %d", w.Code)
	}
}

// In a strict sandbox the time stands still.
func TestStrictSandbox(t *testing.T) {
	t.Parallel()
	o := guest1(t, map[string]string{"strictSandbox": "true"})
	if w := o.ask(request("answer", "x")); w.Code != 203 {
		t.Errorf("answer %d", w.Code)
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/guest.wasm", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(tiny(1))
	})
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	empty := filepath.Join(t.TempDir(), "empty.wasm")
	if err := os.WriteFile(empty, []byte("\x00asm\x01\x00\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		url, want string
		kind      fault.Kind
	}{
		"fetched":        {s.URL + "/guest.wasm", "", 0},
		"not there":      {"file:///nothing/here.wasm", "no file", fault.NotFound},
		"folder":         {"file://" + t.TempDir(), "read module", fault.Invalid},
		"no module":      {s.URL + "/html", "compile module", fault.Invalid},
		"no guest":       {"file://" + empty, "exports no memory", fault.Invalid},
		"404":            {s.URL + "/nothing", "answered 404", fault.Unavailable},
		"nobody there":   {"http://127.0.0.1:1/guest.wasm", "fetch module", fault.Unavailable},
		"cloud metadata": {"http://169.254.169.254/guest.wasm", "link-local", fault.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := open1(t, map[string]string{"url": row.url})
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || fault.KindOf(err) != row.kind) {
				t.Errorf("%v, want kind %v and %q", err, row.kind, row.want)
			}
		})
	}
	if _, err := open1(t, file(t, tiny(2), map[string]string{"memoryLimit": "64Ki"})); err == nil || fault.KindOf(err) != fault.Invalid {
		t.Errorf("a guest that needs more memory: %v", err)
	}
}

// A component that takes the place of another one with the same module does not
// compile it again, whatever else is new about it, and works on without the first.
func TestCompiledOnce(t *testing.T) {
	t.Parallel()
	module, err := built()
	if err != nil {
		t.Fatal(err)
	}
	var shared component.Shared
	open := func(config string) opened {
		t.Helper()
		o, err := openBeside(t, &shared, file(t, module, map[string]string{"guestConfig": config, "memoryLimit": "16Mi"}))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	place := func() wazero.CompilationCache {
		t.Helper()
		c, release, err := compiledOnce(t.Context(), &shared, 16<<20, module)
		if err != nil {
			t.Fatal(err)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := open(`{"a": "b"}`)
	first := place()
	after := open(`{"a": "c"}`)
	if err := before.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if place() != first {
		t.Error("a second component does not keep what the first one compiled")
	}
	if w := after.ask(request("answer", "x")); w.Code != 203 {
		t.Errorf("answer %d", w.Code)
	}
	if err := after.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if place() == first {
		t.Error("with nobody left what was compiled is still there")
	}
}
