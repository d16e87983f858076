// Command shop is the demo's ordering app: an ordinary HTTP server that knows
// nothing of Penstock but its paths.
//
// With -world it also plays the world outside: customers that order, GitHub
// that sends webhooks, a clerk that drops files into a folder.
//
// It promises to print one line for each event that reaches it and for each
// file that an output binding wrote.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	port := flag.String("port", env("APP_PORT", "8087"), "port to listen on")
	world := flag.Bool("world", false, "play customers, GitHub and a clerk")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &shop{failures: map[string]int{}}
	server := &http.Server{Addr: "127.0.0.1:" + *port, Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second}
	var wg sync.WaitGroup
	if *world {
		wg.Go(func() { play(ctx) })
	}
	wg.Go(func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		server.Shutdown(ctx)
	})
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
	wg.Wait()
}

func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

// say prints one line of the account.
func say(from, what, then string) {
	fmt.Printf("%s  %-9s %-52s %s\n", time.Now().Format(time.TimeOnly), from, what, then)
}

type shop struct {
	mu       sync.Mutex
	failures map[string]int // by order, how often it was refused
}

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", s.subscribe)
	mux.HandleFunc("POST /orders", s.order)
	mux.HandleFunc("POST /orders/large", s.largeOrder)
	mux.HandleFunc("POST /offers", s.offer)
	mux.HandleFunc("POST /offers/refused", s.refusedOffer)
	mux.HandleFunc("POST /stocktake", s.stocktake)
	mux.HandleFunc("POST /inbox", s.inbox)
	mux.HandleFunc("POST /builds", s.build)
	return mux
}

func (s *shop) subscribe(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, `[{"pubsubname":"pubsub","topic":"orders",
		"routes":{"rules":[{"match":"event.data.total > 100.0","path":"/orders/large"}],"default":"/orders"}},
		{"pubsubname":"pubsub","topic":"offers","route":"/offers","deadLetterTopic":"offers-refused"},
		{"pubsubname":"pubsub","topic":"offers-refused","route":"/offers/refused"}]`)
}

// event is what the shop reads of a CloudEvent.
type event struct {
	ID      string
	Type    string
	Subject string
	Data    struct {
		Order string
		Total float64
		Repo  string
		Head  string
		By    string
	}
}

func read(r *http.Request) (event, error) {
	var e event
	err := json.NewDecoder(r.Body).Decode(&e)
	return e, err
}

func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	e, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	say("publish", fmt.Sprintf("order %s for %.2f", e.Data.Order, e.Data.Total), "→ app /orders")
}

// largeOrder answers 503 the first time, so that a retry can be seen.
func (s *shop) largeOrder(w http.ResponseWriter, r *http.Request) {
	e, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.failures[e.ID]++
	n := s.failures[e.ID]
	if n > 1 {
		delete(s.failures, e.ID)
	}
	s.mu.Unlock()
	if n == 1 {
		say("publish", fmt.Sprintf("order %s for %.2f", e.Data.Order, e.Data.Total), "→ app /orders/large: busy, asks for a retry")
		fmt.Fprint(w, `{"status":"RETRY"}`)
		return
	}
	say("publish", fmt.Sprintf("order %s for %.2f, again", e.Data.Order, e.Data.Total), "→ app /orders/large (rule: total > 100)")
}

// offer takes nothing: every offer is dropped, which dead-letters it.
func (s *shop) offer(w http.ResponseWriter, r *http.Request) {
	e, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	say("publish", fmt.Sprintf("offer %s at %.2f, not taken", e.Data.Order, e.Data.Total), "→ app /offers: DROP → dead letter")
	fmt.Fprint(w, `{"status":"DROP"}`)
}

func (s *shop) refusedOffer(_ http.ResponseWriter, r *http.Request) {
	e, _ := read(r)
	say("dead", "offer "+e.Data.Order+": "+r.Header.Get("dlqreason"), "→ app /offers/refused")
}

// stocktake answers with what the ledger should get: the reply is carried out
// as part of the same delivery.
func (s *shop) stocktake(w http.ResponseWriter, _ *http.Request) {
	say("cron", "time to count the stock", "→ app /stocktake → reply → ledger")
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"to": []string{"ledger"}, "operation": "create",
		"metadata": map[string]string{"fileName": "stock-" + time.Now().Format("150405") + ".json"},
		"data":     map[string]any{"counted": time.Now().UTC(), "items": 42},
	})
}

func (s *shop) inbox(_ http.ResponseWriter, r *http.Request) {
	line, _ := io.ReadAll(r.Body)
	say("file", fmt.Sprintf("line %s of %s: %s", r.Header.Get("line"), r.Header.Get("fileName"), line), "→ app /inbox")
}

func (s *shop) build(_ http.ResponseWriter, r *http.Request) {
	e, _ := read(r)
	say("webhook", fmt.Sprintf("push to %s (%.7s)", e.Data.Repo, e.Data.Head), "→ pipeline → topic builds → app /builds")
}
