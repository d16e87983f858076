package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

//go:embed payloads/push.json
var push []byte

const (
	folder  = ".penstock/demo"
	secret  = "It's a Secret to Everybody"
	webhook = "http://127.0.0.1:3522/hooks/github"
)

// play makes events happen until ctx ends.
func play(ctx context.Context) {
	api := "http://127.0.0.1:" + env("DAPR_HTTP_PORT", "3500")
	if !await(ctx, api+"/v1.0/healthz") {
		return
	}
	seen := map[string]bool{}
	look(seen, false)
	acts := []func(context.Context, string, int){customer, hub, clerk, forger, regular, bargain}
	tick := time.NewTicker(1500 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		acts[n%len(acts)](ctx, api, n)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			look(seen, true)
		}
	}
}

// await returns true when the health check says yes.
func await(ctx context.Context, url string) bool {
	for ctx.Err() == nil {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return true
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return false
}

// regular orders something small, customer something large; bargain makes an
// offer that the shop will not take.
func regular(ctx context.Context, api string, n int) {
	publish(ctx, api+"/v1.0/publish/pubsub/orders", n, 19.9)
}

func customer(ctx context.Context, api string, n int) {
	publish(ctx, api+"/v1.0/publish/pubsub/orders", n, 249)
}

func bargain(ctx context.Context, api string, n int) {
	publish(ctx, api+"/v1.0/publish/pubsub/offers", n, 0.5)
}

func publish(ctx context.Context, url string, n int, total float64) {
	body := fmt.Sprintf(`{"order":"A-%04d","total":%.2f}`, n, total)
	send(ctx, url, []byte(body), nil)
}

// hub sends a push as GitHub does, signed.
func hub(ctx context.Context, _ string, _ int) {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(push)
	send(ctx, webhook, push, map[string]string{
		"X-GitHub-Event": "push", "X-GitHub-Delivery": uuid(),
		"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
	})
}

// forger sends one with a signature of its own making.
func forger(ctx context.Context, _ string, _ int) {
	status := send(ctx, webhook, push, map[string]string{
		"X-GitHub-Event": "push", "X-GitHub-Delivery": uuid(),
		"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(make([]byte, 32)),
	})
	say("webhook", "push with a forged signature", fmt.Sprintf("→ refused with %d", status))
}

func uuid() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// clerk drops a file into the watched folder.
func clerk(_ context.Context, _ string, n int) {
	name := fmt.Sprintf("delivery-%04d.csv", n)
	text := fmt.Sprintf("apples,%d\npears,%d\n", n+3, n+5)
	if err := os.WriteFile(filepath.Join(folder, "inbox", name), []byte(text), 0o600); err != nil {
		say("file", err.Error(), "not written")
	}
}

func send(ctx context.Context, url string, body []byte, header map[string]string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// look tells of files that output bindings wrote since the last look.
func look(seen map[string]bool, tell bool) {
	for _, sub := range []string{"ledger", "archive"} {
		files, _ := filepath.Glob(filepath.Join(folder, sub, "*.json"))
		for _, f := range files {
			if tell && !seen[f] {
				say("output", sub+" has "+filepath.Base(f), "written by bindings.localstorage")
			}
			seen[f] = true
		}
	}
}
