// Package ratelimit is the middleware "middleware.http.ratelimit": it refuses
// requests of a client that sends too many.
//
// It is opened through [Component].
//
// Each client, that is its address, has a bucket of its own. Buckets are kept
// for as long as they are not full, at most 65,536 of them; clients beyond that
// share one, so that neither memory nor the limit can be run over by sending
// from many addresses.
package ratelimit

import (
	"context"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("ratelimit", component.About{
	Summary: "Refuses requests of a client that sends too many in a second",
	Limits:  "65,536 clients at a time have a limit of their own; those beyond share one. An IPv6 client is its network of 64 bits.",
	Scale:   "Every process counts by itself.",
	Dapr:    "Dapr counts each path of a client by itself, which perPath does here; a client that takes many paths is otherwise limited as one. The header X-Forwarded-For counts only with trustForwarded, because anybody may send it. An answer of 429 says with Retry-After when to come again.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: limit
spec:
  type: middleware.http.ratelimit
  version: v1
  metadata:
    - name: maxRequestsPerSecond
      value: "10"
`,
}, open)

type options struct {
	Max            float64 `meta:"maxRequestsPerSecond" doc:"Requests of one client in a second, more than 0 and at most 1000000; a fraction is one request in several seconds, in a day at most. As many may come at once." default:"100"`
	PerPath        bool    `meta:"perPath" doc:"Count each path of a client by itself."`
	TrustForwarded bool    `meta:"trustForwarded" doc:"Take the client from the last entry of X-Forwarded-For, or from X-Real-IP. Only behind a proxy that writes them."`
}

// Check implements component.Checker.
func (o options) Check() error {
	if !(o.Max > 0 && o.Max <= 1e6) {
		return component.OptionErrorf("maxRequestsPerSecond", "must be more than 0 and at most 1000000")
	}
	return nil
}

// maxClients bounds the buckets.
const maxClients = 1 << 16

type driver struct {
	o       options
	limit   string        // as the header says it
	step    time.Duration // between requests of a client that sends evenly
	burst   time.Duration // how far ahead of that it may be
	started time.Time

	mu      sync.Mutex
	ahead   map[key]time.Duration // when each bucket is full again, from started on
	beyond  time.Duration         // the bucket that clients without one share
	cleared time.Duration         // when full buckets were removed last
}

type key struct {
	client netip.Addr
	path   string
}

func open(_ context.Context, _ component.Env, o options) (middleware.Driver, error) {
	step := time.Duration(math.Ceil(min(float64(time.Second)/o.Max, float64(24*time.Hour))))
	return &driver{
		o: o, limit: strconv.FormatFloat(o.Max, 'f', 2, 64),
		step: step, burst: step * time.Duration(max(1, int(o.Max))-1),
		started: time.Now(), ahead: map[key]time.Duration{},
	}, nil
}

// Wrap implements middleware.Driver.
func (d *driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Rate-Limit-Limit", d.limit)
		h.Set("X-Rate-Limit-Duration", "1")
		k := key{client: d.client(r)}
		if d.o.PerPath {
			k.path = middleware.Path(r.URL)
		}
		if wait := d.take(k, time.Since(d.started)); wait > 0 {
			h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(wait.Seconds())), 10))
			middleware.Respond(w, http.StatusTooManyRequests, "You have reached maximum request limit.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Close implements middleware.Driver.
func (d *driver) Close(context.Context) error { return nil }

// take takes one request out of a bucket, or returns how long it takes until
// there is one. A bucket is the time at which it is full again, so one that is
// full is as good as none.
func (d *driver) take(k key, now time.Duration) (wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	full, known := d.ahead[k]
	shared := !known && len(d.ahead) >= maxClients && !d.clear(now)
	if shared {
		full = d.beyond
	}
	full = max(full, now)
	if full-now > d.burst {
		return full - now - d.burst
	}
	if full += d.step; shared {
		d.beyond = full
	} else {
		d.ahead[k] = full
	}
	return 0
}

// clear removes the buckets that are full and tells whether there is room now.
// It looks at all of them, so it does so no more than ten times in a second.
func (d *driver) clear(now time.Duration) bool {
	if now-d.cleared < time.Second/10 {
		return false
	}
	d.cleared = now
	for k, full := range d.ahead {
		if full <= now {
			delete(d.ahead, k)
		}
	}
	return len(d.ahead) < maxClients
}

// client returns the address of who sends; the zero one for a Unix socket and
// for what is no address.
func (d *driver) client(r *http.Request) netip.Addr {
	text, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		text = r.RemoteAddr
	}
	if d.o.TrustForwarded {
		text = forwarded(r.Header, text)
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() && !ip.IsLoopback() {
		ip = netip.PrefixFrom(ip, 64).Masked().Addr()
	}
	return ip
}

// forwarded returns what the nearest proxy says. All before its own entry is
// what the client sent.
func forwarded(h http.Header, otherwise string) string {
	if list := h.Values("X-Forwarded-For"); len(list) > 0 {
		last := list[len(list)-1]
		return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	}
	if real := h.Get("X-Real-Ip"); real != "" {
		return strings.TrimSpace(real)
	}
	return otherwise
}
