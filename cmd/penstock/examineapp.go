package main

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/penstock-io/penstock/runtime"
)

// maxSubscriptions is how much of an app's list of subscriptions is read, in bytes.
const maxSubscriptions = 4 << 20

// protocolOfApp is what the app speaks, in lower case.
func (p *patient) protocolOfApp(ctx context.Context) string {
	said := p.AppProtocol
	if said == "" && p.running != nil && p.running.HTTPPort > 0 {
		var m struct {
			AppConnectionProperties struct{ Protocol string }
		}
		if p.ask(ctx, "/v1.0/metadata", &m) == nil { // else the components say that it does not answer
			said = m.AppConnectionProperties.Protocol
		}
	}
	return strings.ToLower(cmp.Or(said, "http"))
}

// greetApp asks an app that listens, and speaks HTTP, the first thing that Penstock asks it.
func (p *patient) greetApp(ctx context.Context, address string) {
	if protocol := p.protocolOfApp(ctx); protocol != "http" {
		p.add("app", sound, "", "something listens at %s, for %s", address, protocol)
		return
	}
	const path = "/dapr/subscribe"
	ctx, cancel := context.WithTimeout(ctx, min(p.Timeout, 5*time.Second))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		p.add("app", broken, "mend --app-channel-address", "%s is no address: %v", address, err)
		return
	}
	if token := os.Getenv("APP_API_TOKEN"); token != "" {
		r.Header.Set("dapr-api-token", token)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		p.add("app", broken, "mend the app when it hangs, or say --app-protocol when it speaks another one", "something listens at %s and gives no answer over HTTP: %v", address, err)
		return
	}
	defer resp.Body.Close()
	switch body, err := io.ReadAll(io.LimitReader(resp.Body, maxSubscriptions)); {
	case err != nil:
		p.add("app", broken, "look at the app's log", "the answer to GET %s breaks off: %v", path, err)
	case resp.StatusCode == http.StatusOK:
		p.subscriptionsOf(address, body)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		p.add("app", broken, "set APP_API_TOKEN to the token that the app asks for", "the app at %s answers GET %s with %s", address, path, resp.Status)
	case resp.StatusCode >= http.StatusInternalServerError:
		p.add("app", broken, "look at the app's log", "the app at %s answers GET %s with %s", address, path, resp.Status)
	default:
		p.add("app", sound, "", "the app at %s answers; it has no GET %s, which only apps need that subscribe by it", address, path)
	}
}

func (p *patient) subscriptionsOf(address string, body []byte) {
	var list []struct{}
	if len(strings.TrimSpace(string(body))) > 0 && json.Unmarshal(body, &list) != nil {
		p.add("app", warning, `answer [], or [{"pubsubname": ..., "topic": ..., "route": ...}]`, "the app at %s answers GET /dapr/subscribe with what is no list of subscriptions", address)
		return
	}
	p.add("app", sound, "", "the app at %s answers and asks for %s", address, runtime.Count(len(list), "subscription"))
}
