package conform

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/middleware"
)

// MiddlewareSetup says what a middleware does.
type MiddlewareSetup struct {
	// Options makes working options and what stands behind them.
	Options func(t *testing.T) map[string]string
	// Wrong are options that Check must refuse, as in [BindingSetup].
	Wrong map[string]map[string]string
	// Pass makes a request that gets through; the suite gives it a body. The
	// options are those that Options made.
	Pass func(t *testing.T, options map[string]string) *http.Request
	// Stop are requests that do not get through, with the status of the answer.
	Stop map[string]StoppedRequest
	// Sent and Answered are what becomes of a body on its way; nil: it stays as
	// it is.
	Sent, Answered func(body string) string
}

// StoppedRequest is a request that a middleware answers itself.
type StoppedRequest struct {
	Request func(t *testing.T, options map[string]string) *http.Request
	Status  int
}

// middlewareTest is one case.
type middlewareTest struct {
	MiddlewareSetup
	d       middleware.Driver
	options map[string]string
}

// Middleware runs the suite of middlewares.
func Middleware(t *testing.T, def component.Definition, setup MiddlewareSetup) {
	t.Helper()
	definition(t, def, setup.Options, setup.Wrong)
	for name, run := range map[string]func(*testing.T, *middlewareTest){
		"pass": middlewarePasses, "stop": middlewareStops, "streams": middlewareStreams, "request as it was": middlewareCopies,
		"end of the caller": middlewareContext, "concurrent use": middlewareConcurrent, "closed": middlewareClosed,
		"taken over": middlewareTakenOver,
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			mt := &middlewareTest{MiddlewareSetup: setup, options: setup.Options(t)}
			d, ok := opened(t, def, environment(t), mt.options).(middleware.Driver)
			if !ok {
				t.Fatal("it does not implement middleware.Driver")
			}
			mt.d = d
			run(t, mt)
			shut(t, d)
			shut(t, d)
		})
	}
}

const middlewareText = "What is sent, and what is answered: Grüße."

// request is one that gets through, with a body.
func (mt *middlewareTest) request(t *testing.T, body io.Reader) *http.Request {
	r := mt.Pass(t, mt.options)
	r.Body, r.ContentLength = io.NopCloser(body), -1
	return r
}

func changed(by func(string) string, text string) string {
	if by == nil {
		return text
	}
	return by(text)
}

// echo answers with a header, a status of its own and what it was sent.
func echo(calls *int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*calls++
		body, err := io.ReadAll(r.Body)
		if err != nil {
			body = []byte(err.Error())
		}
		w.Header().Set("Echo", string(body))
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte(middlewareText))
	})
}

func middlewarePasses(t *testing.T, mt *middlewareTest) {
	calls := 0
	h := mt.d.Wrap(echo(&calls))
	for n := 1; n <= 3; n++ {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, mt.request(t, strings.NewReader(middlewareText)))
		if calls != n || w.Code != http.StatusAccepted {
			t.Fatalf("request %d: %d calls, answer %d %q", n, calls, w.Code, w.Body)
		}
		if got, want := w.Header().Get("Echo"), changed(mt.Sent, middlewareText); got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
		if got, want := w.Body.String(), changed(mt.Answered, middlewareText); got != want {
			t.Errorf("answered %q, want %q", got, want)
		}
	}
}

func middlewareStops(t *testing.T, mt *middlewareTest) {
	for name, s := range mt.Stop {
		calls := 0
		w := httptest.NewRecorder()
		mt.d.Wrap(echo(&calls)).ServeHTTP(w, s.Request(t, mt.options))
		if calls != 0 || w.Code != s.Status {
			t.Errorf("%s: %d calls, answer %d %q, want %d", name, calls, w.Code, w.Body, s.Status)
		}
	}
}

// middlewareStreams holds that the app gets the head of a request before the
// body has come, and the caller what is flushed before the answer has ended.
func middlewareStreams(t *testing.T, mt *middlewareTest) {
	in, send := io.Pipe()
	first := make(chan struct{})
	h := mt.d.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(first)
		body, err := io.ReadAll(r.Body)
		if got, want := string(body), changed(mt.Sent, middlewareText); err != nil || got != want {
			t.Errorf("sent %q, %v", got, err)
		}
		_, _ = w.Write([]byte("one"))
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		<-first
		_, _ = io.WriteString(send, middlewareText)
		_ = send.Close()
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, mt.request(t, in))
	if !w.Flushed {
		t.Error("what was flushed was held back")
	}
	if w.Code != http.StatusOK {
		_ = in.Close()
		t.Errorf("answer %d %q", w.Code, w.Body)
	}
	wg.Wait()
}

// middlewareCopies holds that the request which was passed in stays as it is.
func middlewareCopies(t *testing.T, mt *middlewareTest) {
	r := mt.request(t, strings.NewReader(middlewareText))
	before := *r
	url, header := *r.URL, r.Header.Clone()
	calls := 0
	mt.d.Wrap(echo(&calls)).ServeHTTP(httptest.NewRecorder(), r)
	if diff := cmp.Diff(header, r.Header); diff != "" {
		t.Errorf("the header changed:\n%s", diff)
	}
	if *r.URL != url || r.Method != before.Method || r.RequestURI != before.RequestURI || r.Host != before.Host {
		t.Errorf("the request is %s %s %s now, was %s %s %s", r.Method, r.URL, r.RequestURI, before.Method, &url, before.RequestURI)
	}
}

// middlewareContext holds that whoever comes next hears of the end of the caller,
// and gets what the context holds.
func middlewareContext(t *testing.T, mt *middlewareTest) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	calls := 0
	h := mt.d.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls++
		cancel()
		if r.Context().Err() == nil || r.Context().Value(key{}) != "value" {
			t.Error("the context is another one")
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), mt.request(t, strings.NewReader("")).WithContext(ctx))
	cancel()
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

func middlewareConcurrent(t *testing.T, mt *middlewareTest) {
	h := mt.d.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	var wg sync.WaitGroup
	requests := make([]*http.Request, 8)
	for i := range requests {
		requests[i] = mt.request(t, bytes.NewReader(bytes.Repeat([]byte{'a' + byte(i)}, 100_000)))
	}
	for i, r := range requests {
		wg.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			want := changed(mt.Answered, changed(mt.Sent, strings.Repeat(string('a'+rune(i)), 100_000)))
			if w.Code != http.StatusOK || w.Body.String() != want {
				t.Errorf("request %d: %d, %d bytes, want %d", i, w.Code, w.Body.Len(), len(want))
			}
		})
	}
	wg.Wait()
}

// middlewareClosed holds that a request which is in it ends well, however long
// ago it was closed: a reload does not wait for long ones.
func middlewareClosed(t *testing.T, mt *middlewareTest) {
	w := httptest.NewRecorder()
	mt.d.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shut(t, mt.d)
		_, _ = io.Copy(w, r.Body)
	})).ServeHTTP(w, mt.request(t, strings.NewReader(middlewareText)))
	if got, want := w.Body.String(), changed(mt.Answered, changed(mt.Sent, middlewareText)); got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
}

// middlewareTakenOver holds that whoever comes next can take the connection over,
// as a WebSocket does.
func middlewareTakenOver(t *testing.T, mt *middlewareTest) {
	s := httptest.NewServer(mt.d.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("take over: %v", err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: words\r\n\r\n"+middlewareText)
	})))
	defer s.Close()
	r := mt.Pass(t, mt.options)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "words")
	out, err := http.NewRequestWithContext(t.Context(), r.Method, s.URL+r.URL.RequestURI(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out.Header = r.Header
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(out)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusSwitchingProtocols || string(body) != middlewareText {
		t.Errorf("answer %d %q, %v", resp.StatusCode, body, err)
	}
}
