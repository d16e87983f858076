package console

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"
)

// fresh is how old a shared answer may be: all pages together ask the API no
// more often than this, however many are open.
const fresh = 500 * time.Millisecond

// answers keeps the newest answer to each shared request: four at most.
type answers struct {
	mu     sync.Mutex
	byPath map[string]*kept
}

// kept is one answer. Whoever finds it too old makes a new one while others
// wait.
type kept struct {
	mu     sync.Mutex
	at     time.Time
	status int
	kind   string
	body   []byte
}

func (a *answers) of(path string) *kept {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byPath == nil {
		a.byPath = map[string]*kept{}
	}
	k := a.byPath[path]
	if k == nil {
		k = &kept{}
		a.byPath[path] = k
	}
	return k
}

func (a *answers) serve(w http.ResponseWriter, r *http.Request, path string, api http.Handler) {
	k := a.of(path)
	k.mu.Lock()
	if time.Since(k.at) >= fresh || k.status != http.StatusOK {
		rec := &recorder{status: http.StatusOK, header: http.Header{}}
		api.ServeHTTP(rec, r)
		k.at, k.status, k.kind, k.body = time.Now(), rec.status, rec.header.Get("Content-Type"), rec.body.Bytes()
	}
	status, kind, body := k.status, k.kind, k.body
	k.mu.Unlock()
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// recorder takes an answer.
type recorder struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write implements [http.ResponseWriter].
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// watch passes on a request that goes on until the page goes or Penstock ends.
func (c *console) watch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-c.ending:
			cancel()
		case <-ctx.Done():
		}
	})
	// Else the limit of reading a request would end it.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	c.api.ServeHTTP(w, r.WithContext(ctx))
}
