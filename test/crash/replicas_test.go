package crash

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/fake"
	"github.com/penstock-io/penstock/test/process"
)

const (
	callLimit  = 500 * time.Millisecond // of the policy
	callSlack  = 1500 * time.Millisecond
	callers    = 8
	backWithin = 40 * time.Second // the longest pause of an instance that was away, and a bit

	// settledShare is how many of a hundred calls may fail when callers have come to
	// leave a replica in trouble alone: some are sent to see whether it is well again.
	settledShare = 2
)

// replica is an app with its sidecar, behind a network of its own.
type replica struct {
	process.Sidecar
	network *fake.Proxy
	calls   atomic.Int64 // that the app got
}

func newReplica(t *testing.T, dir, config string, n int) *replica {
	t.Helper()
	r := &replica{}
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { r.calls.Add(1) }))
	t.Cleanup(app.Close)
	internal := freePort(t)
	var err error
	if r.network, err = fake.NewProxy(fmt.Sprintf("127.0.0.1:%d", internal)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.network.Close)
	r.Path, r.Port = binary, freePort(t)
	r.Args = []string{
		"serve", "--app-id", "shop", "--app-port", fmt.Sprint(app.Listener.Addr().(*net.TCPAddr).Port),
		"--dapr-http-port", fmt.Sprint(r.Port), "--dapr-grpc-port", "0", "--dapr-internal-grpc-port", fmt.Sprint(internal),
		"--config", config, "--data-dir", filepath.Join(dir, fmt.Sprint("data", n)),
	}
	r.up(t)
	t.Cleanup(r.Kill)
	return r
}

func (r *replica) up(t *testing.T) {
	t.Helper()
	if err := r.Start(20 * time.Second); err != nil {
		t.Fatalf("%v\n%s", err, r.Log())
	}
}

const replicasConfig = `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: replicas}
spec: {nameResolution: {component: file, configuration: {path: %q}}}
`

const replicasPolicy = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: replicas}
spec:
  policies: {timeouts: {short: %v}}
  targets: {apps: {shop: {timeout: short}}}
`

// fleet is three replicas and a sidecar that calls them.
type fleet struct {
	replicas []*replica
	caller   process.Sidecar
	client   *http.Client
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	apps := write("apps.yaml", "{}\n") // replicas read it and call nobody
	config := write("config.yaml", fmt.Sprintf(replicasConfig, apps))
	write("resources/policy.yaml", fmt.Sprintf(replicasPolicy, callLimit))
	f := &fleet{client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: callers}}}
	var at []string
	for n := range 3 {
		r := newReplica(t, dir, config, n)
		f.replicas, at = append(f.replicas, r), append(at, r.network.Addr())
	}
	write("apps.yaml", "shop: ["+strings.Join(at, ", ")+"]\n")
	f.caller.Path, f.caller.Port = binary, freePort(t)
	f.caller.Args = []string{
		"serve", "--app-id", "caller", "--dapr-http-port", fmt.Sprint(f.caller.Port), "--dapr-grpc-port", "0",
		"--config", config, "--resources-path", filepath.Join(dir, "resources"), "--data-dir", filepath.Join(dir, "data"),
	}
	if err := f.caller.Start(20 * time.Second); err != nil {
		t.Fatalf("%v\n%s", err, f.caller.Log())
	}
	t.Cleanup(f.caller.Kill)
	t.Cleanup(f.client.CloseIdleConnections)
	return f
}

// call is one call, as its caller saw it.
type call struct {
	at, took time.Duration
	failed   bool
}

func (f *fleet) call(begin time.Time) call {
	c := call{at: time.Since(begin)}
	resp, err := f.client.Post(f.caller.API("/invoke/shop/method/work"), "text/plain", strings.NewReader("work"))
	c.failed = err != nil
	if err == nil {
		c.failed = resp.StatusCode != http.StatusOK
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	c.took = time.Since(begin) - c.at
	return c
}

// load calls until the returned function is called, which returns the calls.
func (f *fleet) load(begin time.Time) func() []call {
	var mu sync.Mutex
	var calls []call
	var over atomic.Bool
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for !over.Load() {
				c := f.call(begin)
				mu.Lock()
				calls = append(calls, c)
				mu.Unlock()
				<-time.After(5 * time.Millisecond)
			}
		})
	}
	return func() []call {
		over.Store(true)
		wg.Wait()
		return calls
	}
}

// harm is what may happen to a replica.
type harm struct {
	name      string
	hit, heal func(t *testing.T, r *replica)
}

func harms() []harm {
	network := func(n fake.Network) func(*testing.T, *replica) {
		return func(_ *testing.T, r *replica) { r.network.Set(n) }
	}
	signal := func(s syscall.Signal) func(*testing.T, *replica) {
		return func(t *testing.T, r *replica) {
			if err := r.Signal(s); err != nil {
				t.Error(err)
			}
		}
	}
	well := network(fake.Network{})
	over := make(chan struct{})
	var flapping sync.WaitGroup
	return []harm{
		{"killed", func(_ *testing.T, r *replica) { r.Kill() }, func(t *testing.T, r *replica) { r.up(t) }},
		{"frozen", signal(syscall.SIGSTOP), signal(syscall.SIGCONT)},
		{"slowed", network(fake.Network{Latency: 50 * time.Millisecond}), well},
		{"black-holed", network(fake.Network{Silent: true}), well},
		{"flapping", func(_ *testing.T, r *replica) {
			flapping.Go(func() {
				for n := 0; ; n++ {
					r.network.Set(fake.Network{Reset: n%2 == 0})
					select {
					case <-over:
						return
					case <-time.After(250 * time.Millisecond):
					}
				}
			})
		}, func(t *testing.T, r *replica) { close(over); flapping.Wait(); well(t, r) }},
	}
}

// TestAReplicaInTrouble holds what callers of three replicas see when one is in
// trouble: a few calls that fail, each no longer than its time-out, and then the
// other two; and that the one which is well again gets calls again.
func TestAReplicaInTrouble(t *testing.T) {
	f := newFleet(t)
	last := 3 * time.Second
	if *full {
		last = 30 * time.Second
	}
	t.Logf("%-12s %7s %7s %9s %9s %8s %8s", "replica is", "calls", "failed", "settled", "late", "longest", "back")
	for i, h := range harms() {
		r := f.replicas[i%len(f.replicas)]
		begin := time.Now()
		stop := f.load(begin)
		<-time.After(500 * time.Millisecond)
		hit := time.Since(begin)
		h.hit(t, r)
		<-time.After(last)
		healed := time.Since(begin)
		h.heal(t, r)
		back := f.back(r)
		calls := stop()
		got := look(calls, hit, healed)
		t.Logf("%-12s %7d %7d %9s %8.1f%% %8s %8s", h.name, got.calls, got.failed, got.settled.Round(10*time.Millisecond),
			got.late, got.longest.Round(time.Millisecond), back.Round(10*time.Millisecond))
		if got.early > 0 {
			t.Errorf("%s: %d calls failed before", h.name, got.early)
		}
		if got.late > settledShare {
			t.Errorf("%s: %.1f%% of the calls still fail after half of the time", h.name, got.late)
		}
		if got.longest > callLimit+callSlack {
			t.Errorf("%s: a call took %s", h.name, got.longest)
		}
		if back >= backWithin {
			t.Errorf("%s: the replica got no call again within %s", h.name, back)
		}
	}
}

// back waits until the replica gets calls again as the others do.
func (f *fleet) back(r *replica) time.Duration {
	begin, before := time.Now(), r.calls.Load()
	for r.calls.Load() < before+10 && time.Since(begin) < backWithin {
		<-time.After(10 * time.Millisecond)
	}
	return time.Since(begin)
}

// seen is what callers saw while a replica was in trouble.
type seen struct {
	early         int // failed before that
	calls, failed int
	late          float64       // how many of a hundred failed in the second half
	settled       time.Duration // after that no tenth of a second failed more than its share
	longest       time.Duration
}

func look(calls []call, hit, healed time.Duration) (s seen) {
	const window = 100 * time.Millisecond
	slices.SortFunc(calls, func(a, b call) int { return int(a.at - b.at) })
	late, lateFailed := 0, 0
	all, bad := map[time.Duration]int{}, map[time.Duration]int{}
	for _, c := range calls {
		s.longest = max(s.longest, c.took)
		if c.at+c.took < hit && c.failed {
			s.early++
		}
		if c.at < hit-callLimit || c.at > healed-callLimit {
			continue
		}
		s.calls++
		w := c.at / window
		all[w]++
		if c.at > (hit+healed)/2 {
			late++
		}
		if c.failed {
			s.failed++
			bad[w]++
			if c.at > (hit+healed)/2 {
				lateFailed++
			}
		}
	}
	s.late = 100 * float64(lateFailed) / float64(max(late, 1))
	for w, n := range bad {
		if n*100 > all[w]*settledShare {
			s.settled = max(s.settled, (w+1)*window-hit)
		}
	}
	return s
}
