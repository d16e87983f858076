package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// page is what one viewer has open.
type page struct {
	client       http.Client
	address, key string
}

// open opens the viewers' pages: half of them look at the map, which asks once a
// second, and half at the tail. seen is how many bytes they got.
func open(ctx context.Context, address, data string) (seen func() int64, end func(), err error) {
	token, err := os.ReadFile(filepath.Join(data, "console.token"))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var bytes atomic.Int64
	end = func() { cancel(); wg.Wait() }
	for i := range viewers {
		p := &page{address: address}
		if err := p.signIn(ctx, strings.TrimSpace(string(token))); err != nil {
			end()
			return nil, nil, err
		}
		look := p.looksAtMap
		if i%2 == 1 {
			look = p.looksAtTail
		}
		wg.Go(func() { look(ctx, &bytes) })
	}
	return bytes.Load, end, nil
}

func (p *page) ask(ctx context.Context, method, path string, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.address+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Penstock-Console", p.key)
	resp, err := p.client.Do(r)
	if err == nil && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		err = fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return resp, err
}

// signIn exchanges the token for the cookie and the key of a session.
func (p *page) signIn(ctx context.Context, token string) (err error) {
	if p.client.Jar, err = cookiejar.New(nil); err != nil {
		return err
	}
	resp, err := p.ask(ctx, http.MethodPost, "/session", fmt.Sprintf(`{"token":%q}`, token))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var about struct{ Key string }
	err = json.NewDecoder(resp.Body).Decode(&about)
	p.key = about.Key
	return err
}

// looksAtMap asks as the page does, until ctx ends or an answer is refused.
func (p *page) looksAtMap(ctx context.Context, bytes *atomic.Int64) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for round := 0; ; round++ {
		paths := []string{"/v1.0-penstock/routes?window=10s"}
		if round%5 == 0 {
			paths = append(paths, "/session", "/v1.0/metadata")
		}
		for _, path := range paths {
			if !p.reads(ctx, path, bytes) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// looksAtTail has the events sent as they come.
func (p *page) looksAtTail(ctx context.Context, bytes *atomic.Int64) {
	p.reads(ctx, "/v1.0-penstock/events/watch?rate=100", bytes)
}

// reads tells whether an answer came.
func (p *page) reads(ctx context.Context, path string, bytes *atomic.Int64) bool {
	resp, err := p.ask(ctx, http.MethodGet, path, "")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(counting{bytes}, resp.Body)
	return err == nil
}

// counting counts what is written to it.
type counting struct{ n *atomic.Int64 }

// Write implements [io.Writer].
func (c counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
