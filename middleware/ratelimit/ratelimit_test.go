package ratelimit

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Middleware(t, Component, conform.MiddlewareSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"maxRequestsPerSecond": "1000"} },
		Wrong:   map[string]map[string]string{"maxRequestsPerSecond": {"maxRequestsPerSecond": "0"}},
		Pass: func(*testing.T, map[string]string) *http.Request {
			return httptest.NewRequest("POST", "/v1.0/publish/bus/t", nil)
		},
	})
}

func TestWrongRates(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"0", "-1", "1000001", "many", "NaN", "Inf"} {
		ps := Component.Check([]config.Item{{Name: "maxRequestsPerSecond", Value: v}})
		if errs, _ := ps.Split(false); len(errs) != 1 {
			t.Errorf("%s: %v, want one error", v, ps)
		}
	}
}

// ask sends a request and returns the status and Retry-After.
type ask func(addr, path string, header ...string) (int, string)

func limited(t *testing.T, items ...config.Item) ask {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{}, items)
	if err != nil {
		t.Fatal(err)
	}
	h := d.(middleware.Driver).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	return func(addr, path string, header ...string) (int, string) {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = addr
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == 429 && w.Body.String() != "You have reached maximum request limit." {
			t.Errorf("body %q", w.Body)
		}
		return w.Code, w.Header().Get("Retry-After")
	}
}

// pass counts how many of n requests pass.
func (a ask) pass(n int, addr, path string, header ...string) (passed int) {
	for range n {
		if code, _ := a(addr, path, header...); code == 204 {
			passed++
		}
	}
	return passed
}

func rate(v string) config.Item { return config.Item{Name: "maxRequestsPerSecond", Value: v} }

func TestRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := limited(t, rate("10"))
		if n := a.pass(100, "10.0.0.1:1", "/a"); n != 10 {
			t.Errorf("%d at once, want 10", n)
		}
		<-time.After(300 * time.Millisecond)
		if n := a.pass(100, "10.0.0.1:2", "/b"); n != 3 {
			t.Errorf("%d after 300 ms, want 3", n)
		}
		if n := a.pass(100, "10.0.0.2:1", "/a"); n != 10 {
			t.Errorf("%d of another client, want 10", n)
		}
		<-time.After(time.Hour)
		if n := a.pass(100, "10.0.0.1:1", "/a"); n != 10 {
			t.Errorf("%d after an hour, want 10", n)
		}
		slow := limited(t, rate("0.1"))
		if n := slow.pass(10, "10.0.0.1:1", "/a"); n != 1 {
			t.Errorf("%d at once, want 1", n)
		}
		if code, after := slow("10.0.0.1:1", "/a"); code != 429 || after != "10" {
			t.Errorf("%d, Retry-After %q, want 429 and 10", code, after)
		}
		<-time.After(10 * time.Second)
		if n := slow.pass(10, "10.0.0.1:1", "/a"); n != 1 {
			t.Errorf("%d after 10 s, want 1", n)
		}
		if n := limited(t, rate("0.0000000001")).pass(10, "10.0.0.1:1", "/a"); n != 1 {
			t.Errorf("%d of a rate that is next to nothing, want 1", n)
		}
	})
}

// Who a client is cannot be chosen by the client.
func TestClients(t *testing.T) {
	t.Parallel()
	trust := config.Item{Name: "trustForwarded", Value: "true"}
	paths := config.Item{Name: "perPath", Value: "true"}
	for name, row := range map[string]struct {
		items []config.Item
		send  func(a ask, i int) int
		want  int // of 50 requests
	}{
		"ports":       {nil, func(a ask, i int) int { return a.pass(1, fmt.Sprintf("10.0.0.1:%d", i+1), "/a") }, 5},
		"paths":       {nil, func(a ask, i int) int { return a.pass(1, "10.0.0.1:1", fmt.Sprintf("/%d", i)) }, 5},
		"paths, each": {[]config.Item{paths}, func(a ask, i int) int { return a.pass(1, "10.0.0.1:1", fmt.Sprintf("/%d", i%4)) }, 20},
		"forwarded": {nil, func(a ask, i int) int {
			return a.pass(1, "10.0.0.1:1", "/a", "X-Forwarded-For", fmt.Sprint("10.1.0.", i))
		}, 5},
		"forwarded, two": {[]config.Item{trust}, func(a ask, i int) int {
			return a.pass(1, "10.0.0.1:1", "/a", "X-Forwarded-For", fmt.Sprint("10.1.0.", i%2))
		}, 10},
		"forwarded, list": {[]config.Item{trust}, func(a ask, i int) int {
			return a.pass(1, "10.0.0.1:1", "/a", "X-Forwarded-For", fmt.Sprintf("10.1.0.%d, 10.2.0.1", i))
		}, 5},
		"forwarded, rows": {[]config.Item{trust}, func(a ask, i int) int {
			return a.pass(1, "10.0.0.1:1", "/a", "X-Forwarded-For", fmt.Sprint("10.1.0.", i), "X-Forwarded-For", "10.2.0.1")
		}, 5},
		"forwarded, rubbish": {[]config.Item{trust}, func(a ask, i int) int {
			return a.pass(1, "10.0.0.1:1", "/a", "X-Forwarded-For", fmt.Sprint("client-", i))
		}, 5},
		"real":         {[]config.Item{trust}, func(a ask, i int) int { return a.pass(1, "10.0.0.1:1", "/a", "X-Real-IP", fmt.Sprint("10.1.0.", i%3)) }, 15},
		"IPv6":         {nil, func(a ask, i int) int { return a.pass(1, fmt.Sprintf("[2001:db8::%x]:1", i), "/a") }, 5},
		"IPv6, zone":   {nil, func(a ask, i int) int { return a.pass(1, fmt.Sprintf("[fe80::1%%eth%d]:1", i), "/a") }, 5},
		"IPv4 in IPv6": {nil, func(a ask, i int) int { return a.pass(1, [2]string{"10.0.0.1:1", "[::ffff:10.0.0.1]:1"}[i%2], "/a") }, 5},
		"socket":       {nil, func(a ask, i int) int { return a.pass(1, "@", "/a") }, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, passed := limited(t, append(row.items, rate("5"))...), 0
				for i := range 50 {
					passed += row.send(a, i)
				}
				if passed != row.want {
					t.Errorf("%d passed, want %d", passed, row.want)
				}
			})
		})
	}
}

// However many addresses send, memory is bounded, those that were there first
// keep their limit, and the others together have one.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	d := &driver{step: time.Second, burst: 0, ahead: map[key]time.Duration{}}
	address := func(i int) key {
		return key{client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	passed := 0
	for i := range 3 * maxClients {
		if d.take(address(i), time.Second) == 0 {
			passed++
		}
	}
	if len(d.ahead) != maxClients || passed != maxClients+1 {
		t.Errorf("%d buckets, %d passed, want %d and one more", len(d.ahead), passed, maxClients)
	}
	if d.take(address(0), time.Second) == 0 {
		t.Error("the first one may send more than its share")
	}
	if d.take(address(5*maxClients), 3*time.Second) != 0 || len(d.ahead) != 1 {
		t.Errorf("%d buckets when all are full again, want 1", len(d.ahead))
	}
}
