package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"
)

// runFloor is the least that a program can do that takes events over HTTP and
// delivers them over HTTP: one bare net/http handler and one bare net/http
// client call for each, with the same number of deliveries under way. Like
// penstock with a topic in memory it answers before it delivers.
func runFloor(ctx context.Context, address, to string) error {
	bodies := make(chan []byte, 1024)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = lanesWide
	client := &http.Client{Transport: transport}
	for range lanesWide {
		go func() {
			for body := range bodies {
				post(client, to, body)
			}
		}()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1.0/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		bodies <- body
		w.WriteHeader(http.StatusNoContent)
	})
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// post delivers one event. What goes wrong shows as an event that does not
// arrive.
func post(client *http.Client, to string, body []byte) {
	resp, err := client.Post(to, "application/json", bytes.NewReader(body))
	if err != nil {
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}
