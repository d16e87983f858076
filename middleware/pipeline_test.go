package middleware_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
)

// sign is a middleware that puts its name before the answer.
type sign struct {
	name   string
	wraps  *atomic.Int32
	closed chan struct{}
}

func (s sign) Wrap(next http.Handler) http.Handler {
	s.wraps.Add(1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, s.name+">")
		next.ServeHTTP(w, r)
	})
}

func (s sign) Close(context.Context) error { close(s.closed); return nil }

type signOptions struct {
	Text string `meta:"text" doc:"What it says."`
}

// signed makes a handler; it is open when err is nil.
func signed(t *testing.T, name, text string, err error) (h *middleware.Handler, s sign) {
	t.Helper()
	s = sign{text, new(atomic.Int32), make(chan struct{})}
	def := middleware.Define("sign", component.About{}, func(context.Context, component.Env, signOptions) (middleware.Driver, error) { return s, err })
	if def.Type != "middleware.http.sign" {
		t.Errorf("type %s", def.Type)
	}
	h, made := middleware.New(def, component.Env{Name: name}, config.Component{Name: name})
	if made != nil || h.Name() != name {
		t.Fatal(h, made)
	}
	if run := h.Instance().Run(t.Context()); (run == nil) != (err == nil) {
		t.Fatal(run)
	}
	return h, s
}

// table is the components by name.
type table struct {
	mu sync.Mutex
	by map[string]*middleware.Handler
}

func (ta *table) find(name string) *middleware.Handler {
	ta.mu.Lock()
	defer ta.mu.Unlock()
	return ta.by[name]
}

func (ta *table) put(name string, h *middleware.Handler) {
	ta.mu.Lock()
	defer ta.mu.Unlock()
	if ta.by == nil {
		ta.by = map[string]*middleware.Handler{}
	}
	ta.by[name] = h
}

func answer(h http.Handler) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Code, w.Body.String()
}

func checkAnswer(t *testing.T, h http.Handler, code int, body string) {
	t.Helper()
	if c, b := answer(h); c != code || b != body {
		t.Errorf("answer %d %q, want %d %q", c, b, code, body)
	}
}

func end() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "end") })
}

func TestPipelineIsReplaced(t *testing.T) {
	t.Parallel()
	var ta table
	p := middleware.NewPipeline(ta.find)
	h := p.Wrap(end())
	if !p.Empty() {
		t.Error("a new pipeline is not empty")
	}
	checkAnswer(t, h, 200, "end")
	a, signA := signed(t, "a", "a1", nil)
	b, _ := signed(t, "b", "b", nil)
	ta.put("a", a)
	ta.put("b", b)
	names := []string{"a", "b", "a"}
	p.Set(names)
	names[0] = "other" // it is the caller's
	checkAnswer(t, h, 200, "a1>b>a1>end")
	checkAnswer(t, h, 200, "a1>b>a1>end")
	if signA.wraps.Load() != 2 || p.Empty() {
		t.Errorf("wrapped %d times, want once for each place", signA.wraps.Load())
	}
	a2, _ := signed(t, "a", "a2", nil)
	ta.put("a", a2)
	checkAnswer(t, h, 200, "a2>b>a2>end")
	p.Set([]string{"b"})
	checkAnswer(t, h, 200, "b>end")
	p.Set(nil)
	checkAnswer(t, h, 200, "end")
	if !p.Empty() {
		t.Error("it is not empty")
	}
}

// A nil pipeline is none.
func TestNoPipeline(t *testing.T) {
	t.Parallel()
	var p *middleware.Pipeline
	if !p.Empty() {
		t.Error("not empty")
	}
	checkAnswer(t, p.Wrap(end()), 200, "end")
}

// What is named and cannot work lets nothing through.
func TestPipelineIsClosedWithoutItsMiddleware(t *testing.T) {
	t.Parallel()
	var ta table
	p := middleware.NewPipeline(ta.find)
	h := p.Wrap(end())
	p.Set([]string{"gate"})
	const refused = "middleware gate is not ready"
	checkAnswer(t, h, 503, refused)
	broken, _ := signed(t, "gate", "", fault.New(fault.Invalid, "open it with s3cr3t: no"))
	ta.put("gate", broken)
	checkAnswer(t, h, 503, refused)
	closed, _ := signed(t, "gate", "closed", nil)
	if err := closed.Instance().Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	ta.put("gate", closed)
	checkAnswer(t, h, 503, refused)
	good, _ := signed(t, "gate", "good", nil)
	ta.put("gate", good)
	checkAnswer(t, h, 200, "good>end")
}

// A middleware that is replaced stays open for the requests that are in it.
func TestRequestsUnderWayKeepIt(t *testing.T) {
	t.Parallel()
	var ta table
	p := middleware.NewPipeline(ta.find)
	old, s := signed(t, "a", "old", nil)
	ta.put("a", old)
	p.Set([]string{"a"})
	inside, goOn := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	h := p.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			close(inside)
			<-goOn
		}
		_, _ = io.WriteString(w, "end")
	}))
	var wg sync.WaitGroup
	wg.Go(func() { checkAnswer(t, h, 200, "old>end") })
	<-inside
	fresh, _ := signed(t, "a", "new", nil)
	ta.put("a", fresh)
	wg.Go(func() {
		if err := old.Instance().Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	checkAnswer(t, h, 200, "new>end")
	select {
	case <-s.closed:
		t.Error("it was closed under a request")
	default:
	}
	close(goOn)
	wg.Wait()
	<-s.closed
}

// Changing everything all the time fails no request.
func TestPipelineChangesUnderLoad(t *testing.T) {
	t.Parallel()
	var ta table
	p := middleware.NewPipeline(ta.find)
	h := p.Wrap(end())
	first, _ := signed(t, "a", "a", nil)
	ta.put("a", first)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if code, body := answer(h); code != 200 || body != "end" && body != "a>end" && body != "a>a>end" {
					t.Errorf("answer %d %q", code, body)
					return
				}
			}
		})
	}
	for i := range 200 {
		next, _ := signed(t, "a", "a", nil)
		ta.put("a", next)
		p.Set([][]string{nil, {"a"}, {"a", "a"}}[i%3])
	}
	close(stop)
	wg.Wait()
}
