package attack

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile answers as an app may that is broken or worse, B16. It tells whether it
// did.
func hostile(w http.ResponseWriter, r *http.Request) bool {
	piece := bytes.Repeat([]byte("x"), 16<<10)
	switch strings.TrimPrefix(r.URL.Path, "/base") {
	case "/endless":
		for {
			if _, err := w.Write(piece); err != nil {
				return true
			}
		}
	case "/large":
		w.Header().Set("Content-Length", "1000000000")
		for range 1_000_000_000 / len(piece) {
			if _, err := w.Write(piece); err != nil {
				return true
			}
		}
	case "/drip":
		for r.Context().Err() == nil {
			_, _ = w.Write(piece[:1])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	case "/heads":
		for n := range 1000 {
			w.Header().Set("X-"+strings.Repeat("y", n%50)+string(rune('a'+n%26))+strings.Repeat("z", n/26), strings.Repeat("x", 10_000))
		}
	default:
		return false
	}
	return true
}

// TestHostileAnswers holds that an answer without an end, too long, too slow or with
// too much in front is cut off, fails, and costs no memory.
func TestHostileAnswers(t *testing.T) {
	w := newWorld(t)
	before := heap()
	for _, path := range []string{"/endless", "/large", "/drip", "/heads"} {
		t.Run("output binding"+path, func(t *testing.T) {
			status, text := w.ask(t, "POST", "/v1.0/bindings/web", `{"operation":"get","metadata":{"path":"`+path+`"}}`)
			if status != http.StatusInternalServerError || !strings.Contains(text, "ERR_INVOKE_OUTPUT_BINDING") {
				t.Errorf("%d %.300s", status, text)
			}
		})
	}
	for server, target := range map[string]string{"callee": "callee", "shop": "callee", "callee to a server": "away"} {
		t.Run("call/"+server, func(t *testing.T) {
			status, text := w.askOf(t, strings.Fields(server)[0], "GET", "/v1.0/invoke/"+target+"/method/heads", "")
			if status != http.StatusInternalServerError || !strings.Contains(text, "ERR_DIRECT_INVOKE") {
				t.Errorf("%d %.300s", status, text)
			}
		})
	}
	if grown := heap() - before; grown > floodMemory {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	w.served(t)
}

// ask sends a request to the callee and returns what it answers.
func (w *world) ask(t *testing.T, verb, path, body string) (status int, text string) {
	t.Helper()
	return w.askOf(t, "callee", verb, path, body)
}

func (w *world) askOf(t *testing.T, server, verb, path, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), verb, "http://"+w.at[server]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Dapr-Api-Token", apiToken)
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// TestBombs holds that what is packed costs the memory of what it is packed in, B15:
// on its way through, and where it is refused.
func TestBombs(t *testing.T) {
	w := newWorld(t)
	list := rows(t)["messages"]
	first := slices.IndexFunc(list, func(r row) bool { return strings.HasPrefix(r.Name, "a packed body") })
	w.log.take()
	for _, r := range list[first:] {
		if r.Packed {
			continue // its own message is as long
		}
		before := allocated()
		w.check(t, r)
		if grown := allocated() - before; grown > bomb/2 {
			t.Errorf("%s: %d MB were allocated", r.Name, grown>>20)
		}
	}
}

// allocated is how much memory was ever asked for, in bytes.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
