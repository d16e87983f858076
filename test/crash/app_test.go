// Package crash kills, stops and reloads a real penstock under load and checks
// that nothing which was accepted is lost.
package crash

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// app is the user's program: it counts what reaches it by id.
type app struct {
	port  int
	order string // expression by which deliveries keep their order; empty: none

	mu     sync.Mutex
	seen   map[string]int
	firsts []string             // in the order of their first arrival
	at     map[string]time.Time // first arrivals; nil when nobody asks
	dead   atomic.Int64         // dead letters
}

func newApp(t *testing.T) *app {
	t.Helper()
	a := &app{seen: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.port = l.Addr().(*net.TCPAddr).Port
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		metadata := ""
		if a.order != "" {
			metadata = fmt.Sprintf(`,"metadata":{"orderingKey":%q}`, a.order)
		}
		fmt.Fprint(w, `[{"pubsubname":"bus","topic":"load","route":"/load","deadLetterTopic":"dead"`+metadata+`},{"pubsubname":"bus","topic":"dead","route":"/dead"}]`)
	})
	mux.HandleFunc("POST /dead", func(http.ResponseWriter, *http.Request) { a.dead.Add(1) })
	mux.HandleFunc("POST /", a.receive)
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return a
}

// receive finds the id, which begins with "id-", wherever it is in the body.
func (a *app) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, rest, _ := strings.Cut(string(body), "[id-")
	id, _, ok := strings.Cut(rest, "]")
	if !ok {
		http.Error(w, "no id in "+string(body), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.seen[id]++
	if a.seen[id] == 1 {
		a.firsts = append(a.firsts, id)
		if a.at != nil {
			a.at[id] = time.Now()
		}
	}
	a.mu.Unlock()
}

// tally compares what was accepted with what arrived.
func (a *app) tally(accepted []string) (missing []string, duplicates int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range accepted {
		if a.seen[id] == 0 {
			missing = append(missing, id)
		}
	}
	for _, n := range a.seen {
		duplicates += n - 1
	}
	return missing, duplicates
}
