package contract

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The app is called at most so often at once, for everything together, and
// exactly so often when there is enough to do.
func TestMaxConcurrency(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	gate := make(chan struct{})
	a := &app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a"},{"pubsubname":"db","topic":"a","route":"/a"}]`}
	a.reply = func(c call, _ int) answer {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-gate
		return answer{}
	}
	a.serve(t)
	sc := start(t, setup{app: a.port, resources: buses, flags: []string{"--app-max-concurrency", "3"}})
	for i := range 10 {
		sc.publish(t, "mem/a", fmt.Sprint(i))
		sc.publish(t, "db/a", fmt.Sprint(i))
	}
	eventually(t, "three calls at once", func() bool { return now.Load() == 3 })
	close(gate)
	a.wait(t, "/a", 20)
	if most.Load() != 3 {
		t.Errorf("%d calls at once, want 3", most.Load())
	}
}

func TestAppProtocols(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		flags []string
		tls   bool
		proto string
	}{
		{[]string{"--app-protocol", "h2c"}, false, "HTTP/2.0"},
		{[]string{"--app-protocol=https"}, true, "HTTP/1.1"},
		{[]string{"--app-ssl"}, true, "HTTP/1.1"},
	} {
		t.Run(strings.Join(row.flags, " "), func(t *testing.T) {
			t.Parallel()
			a := &app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a"}]`}
			if row.tls {
				a.serveTLS(t)
			} else {
				a.serve(t)
			}
			sc := start(t, setup{app: a.port, resources: buses, flags: row.flags})
			sc.publish(t, "mem/a", `1`)
			if got := a.wait(t, "/a", 1)[0].proto; got != row.proto {
				t.Errorf("called over %s, want %s", got, row.proto)
			}
		})
	}
}

// An app that is not well gets nothing, and an event that waited is no failed
// attempt: it is delivered, not dead-lettered, soon after the app is well.
func TestHealthGate(t *testing.T) {
	t.Parallel()
	var well atomic.Bool
	var since atomic.Int64
	a := &app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a","deadLetterTopic":"d"},{"pubsubname":"mem","topic":"d","route":"/d"}]`}
	a.reply = func(c call, _ int) answer {
		if c.path == "/up" && !well.Load() {
			return answer{status: 500}
		}
		return answer{}
	}
	a.serve(t)
	sc := start(t, setup{app: a.port, resources: buses + crons("  - {name: direction, value: input}"), flags: []string{
		"--enable-app-health-check", "--app-health-check-path", "/up", "--app-health-probe-interval", "1", "--app-health-threshold", "1",
	}})
	sc.publish(t, "mem/a", `1`)
	a.wait(t, "/up", 3)
	if n := len(a.got("/a")) + len(a.got("/c0")) + len(a.got("/d")); n > 0 {
		t.Errorf("%d deliveries to an app that is not well", n)
	}
	since.Store(time.Now().UnixNano())
	well.Store(true)
	if late := a.wait(t, "/a", 1)[0].at.Sub(time.Unix(0, since.Load())); late > 2*time.Second {
		t.Errorf("delivered %s after the app was well", late)
	}
	a.wait(t, "/c0", 1)
	asked := len(a.got("/up"))
	well.Store(false)
	a.wait(t, "/up", asked+2)
	sc.logged(t, regexp.MustCompile("App is unhealthy"))
	sc.publish(t, "mem/a", `2`)
	a.wait(t, "/up", asked+4)
	if n := len(a.got("/a")); n != 1 {
		t.Errorf("delivered %d times to an app that is not well again", n)
	}
	well.Store(true)
	a.wait(t, "/a", 2)
	if n := len(a.got("/d")); n > 0 {
		t.Errorf("%d dead letters", n)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		stop func(t *testing.T, sc *sidecar)
		code int
	}{
		{"SIGTERM", func(t *testing.T, sc *sidecar) { sc.signal(t, syscall.SIGTERM) }, 0},
		{"SIGINT", func(t *testing.T, sc *sidecar) { sc.signal(t, syscall.SIGINT) }, 0},
		{"API", func(t *testing.T, sc *sidecar) {
			checkProblem(t, send(t, request{url: sc.api + "/shutdown"}), 204, "", "")
		}, 0},
		{"API forced", func(t *testing.T, sc *sidecar) {
			checkProblem(t, send(t, request{url: sc.api + "/shutdown", header: map[string]string{"dapr-force-shutdown": "true"}}), 204, "", "")
		}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := (&app{}).serve(t)
			sc := start(t, setup{app: a.port, resources: buses})
			row.stop(t, sc)
			if code := sc.exit(t); code != row.code {
				t.Errorf("exit code %d, want %d", code, row.code)
			}
		})
	}
}

// What is under way at SIGTERM gets the grace period to finish; what hangs
// longer makes the exit code 1.
func TestGracePeriod(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		hangs bool
		code  int
	}{{"finishes", false, 0}, {"hangs", true, 1}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			gate := make(chan struct{})
			free := sync.OnceFunc(func() { close(gate) })
			a := &app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a"}]`}
			a.reply = func(call, int) answer { <-gate; return answer{} }
			a.serve(t)
			t.Cleanup(free)
			grace := "30"
			if row.hangs {
				grace = "1"
			}
			sc := start(t, setup{app: a.port, resources: buses, flags: []string{"--dapr-graceful-shutdown-seconds", grace}})
			sc.publish(t, "mem/a", `1`)
			a.wait(t, "/a", 1)
			sc.signal(t, syscall.SIGTERM)
			sc.logged(t, regexp.MustCompile("shutting down"))
			if !row.hangs {
				free()
			}
			if code := sc.exit(t); code != row.code {
				t.Errorf("exit code %d, want %d", code, row.code)
			}
		})
	}
}

// After SIGTERM everything goes on for the block-shutdown time: health is good,
// intake and both sides of the API work.
func TestBlockShutdown(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a"}]`}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses, flags: []string{"--dapr-block-shutdown-duration", "2s"}})
	began := time.Now()
	sc.signal(t, syscall.SIGTERM)
	sc.logged(t, regexp.MustCompile("Blocking shutdown"))
	sc.publish(t, "mem/a", `1`)
	a.wait(t, "/a", 1)
	if r := get(t, sc.api+"/healthz"); r.status != 204 {
		t.Errorf("health while blocked: %d %s", r.status, r.body)
	}
	if code := sc.exit(t); code != 0 || time.Since(began) < 2*time.Second {
		t.Errorf("exit code %d after %s", code, time.Since(began))
	}
}

// What ends the block before its time: an app that is not well any more, and a
// forced shutdown. A second signal ends the process at once.
func TestBlockShutdownEndsEarly(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		end  func(t *testing.T, sc *sidecar, well *atomic.Bool)
		code int
	}{
		{"app is not well", func(_ *testing.T, _ *sidecar, well *atomic.Bool) { well.Store(false) }, 0},
		{"forced", func(t *testing.T, sc *sidecar, _ *atomic.Bool) {
			checkProblem(t, send(t, request{url: sc.api + "/shutdown", header: map[string]string{"dapr-force-shutdown": "true"}}), 204, "", "")
		}, 1},
		{"second signal", func(t *testing.T, sc *sidecar, _ *atomic.Bool) { sc.signal(t, syscall.SIGTERM) }, -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var well atomic.Bool
			well.Store(true)
			a := &app{reply: func(c call, _ int) answer {
				if c.path == "/healthz" && !well.Load() {
					return answer{status: 500}
				}
				return answer{}
			}}
			a.serve(t)
			sc := start(t, setup{app: a.port, resources: buses, flags: []string{
				"--dapr-block-shutdown-duration", "10m", "--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1",
			}})
			sc.signal(t, syscall.SIGTERM)
			sc.logged(t, regexp.MustCompile("Blocking shutdown"))
			row.end(t, sc, &well)
			if code := sc.exit(t); code != row.code {
				t.Errorf("exit code %d, want %d", code, row.code)
			}
		})
	}
}

// SIGHUP reads the configuration again in the same process.
func TestHangUp(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses})
	sc.signal(t, syscall.SIGHUP)
	sc.logged(t, regexp.MustCompile("Reload asked for"))
	sc.publish(t, "mem/a", `1`)
	sc.alive(t)
}

// Starts that cannot work end at once with code 1 and say why.
func TestStartFails(t *testing.T) {
	t.Parallel()
	taken := start(t, setup{resources: buses})
	port := taken.api[strings.LastIndex(taken.api, ":")+1 : len(taken.api)-len("/v1.0")]
	for _, row := range []struct {
		name, resources string
		flags           []string
		log             string
	}{
		{"name twice", buses + buses, nil, `mem`},
		{"secret store is missing", strings.ReplaceAll(vaults, "secretStore: flat", "secretStore: gone"), nil, `"gone"`},
		{"component cannot open", strings.ReplaceAll(buses, "DIR/bus.db", "/proc/nope/bus.db"), nil, `db`},
		{"port taken", buses, []string{"--dapr-http-port", port}, port},
		{"unknown protocol", buses, []string{"--app-protocol", "carrier-pigeon"}, "carrier-pigeon"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			sc := launch(t, setup{resources: row.resources, flags: row.flags})
			if code := sc.exit(t); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(sc.log.String(), row.log) {
				t.Errorf("the log does not name %q:\n%s", row.log, sc.log)
			}
		})
	}
	t.Run("no app id", func(t *testing.T) {
		t.Parallel()
		cmd := exec.Command(binary, "serve")
		cmd.Env = []string{}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "app-id") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// What must not keep a sidecar from starting: kinds it has no use for, a
// component that may fail, several files, Dapr's other flags.
func TestStartGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "resources", "other.yml"), `
apiVersion: v1
kind: ConfigMap
metadata: {name: x}
---
apiVersion: dapr.io/v1alpha1
kind: MCPServer
metadata: {name: e}
spec: {}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: optional}
spec:
  type: pubsub.sqlite
  version: v1
  ignoreErrors: true
  initTimeout: 1s
  metadata: [{name: connectionString, value: /proc/nope/bus.db}]
`)
	write(t, filepath.Join(dir, "resources", "notes.txt"), "not YAML: {")
	write(t, filepath.Join(dir, "resources", "wrong.yaml"), wrong)
	link := filepath.Join(dir, "daprd")
	if out, err := exec.Command("ln", "-s", binary, link).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	log := &lines{}
	write(t, filepath.Join(dir, "resources", "bus.yaml"), strings.ReplaceAll(buses, "DIR", dir))
	cmd := exec.Command(link, "--app-id=shop", "--dapr-http-port=0", "--components-path="+filepath.Join(dir, "resources"),
		"--data-dir", filepath.Join(dir, "data"), "--mode", "standalone", "--dapr-grpc-port", "0", "--dapr-internal-grpc-port", "0",
		"--metrics-port", "9090", "--enable-metrics=false", "--enable-profiling", "--profile-port=0", "--placement-host-address", "localhost:50005",
		"--scheduler-host-address=localhost:50006", "--scheduler-job-streams", "3", "--control-plane-trust-domain", "localhost",
		"--dapr-http-max-request-size", "8", "--dapr-http-read-buffer-size", "8", "--log-level", "debug", "--log-as-json", "--enable-api-logging",
		"--hot-reload-reconcile-interval", "60s", "--disable-builtin-k8s-secret-store", "--app-max-concurrency=-1", "--sentry-address", "")
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{}, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := &sidecar{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() { defer close(sc.ended); cmd.Wait() }()
	t.Cleanup(func() { sc.cleanUp(t) })
	address := regexp.MustCompile(`"HTTP server listening".*"address":"([^"]+)"`)
	sc.logged(t, address)
	sc.api = "http://" + address.FindStringSubmatch(log.String())[1] + "/v1.0"
	eventually(t, "penstock is ready", func() bool { sc.alive(t); return get(t, sc.api+"/healthz").status == http.StatusNoContent })
	sc.publishAs(t, "mem/a", "text/plain", strings.Repeat("x", 5<<20)) // above the usual limit
	for _, pattern := range []string{`"level":"info"`, `"app_id":"shop"`, `optional`, `"method":"POST /v1.0/publish/mem/a"`, `"code":204`, `placement-host-address`} {
		sc.logged(t, regexp.MustCompile(pattern))
	}
}

// The log is logfmt, and says the common situations in known words.
func TestLog(t *testing.T) {
	t.Parallel()
	a := (&app{}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	for _, pattern := range []string{
		`(?m)^time=\S+ level=info msg=".*" .*app_id=shop`,
		`Component loaded.*mem.*pubsub\.in-memory/v1`,
		`(?i)application discovered on port ` + fmt.Sprint(a.port),
		`HTTP server listening`,
		`dapr initialized\. Status: Running\.`,
	} {
		sc.logged(t, regexp.MustCompile(pattern))
	}
}

// A flag that is wrong is named, with the nearest right one; those that only
// print something do so and end.
func TestFlags(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		flags string
		works bool
		says  string
	}{
		{"--app-id shop --app-prot 8080", false, "--app-port"},
		{"--app-id shop --app-port many", false, "--app-port"},
		{"--app-id shop --mode moon", false, "kubernetes"},
		{"--app-id shop --max-body-size much", false, "--max-body-size"},
		{"--version", true, "."},
		{"--build-info", true, "Version"},
	} {
		t.Run(row.flags, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(binary, append([]string{"serve"}, strings.Fields(row.flags)...)...)
			cmd.Env = []string{}
			out, err := cmd.CombinedOutput()
			if (err == nil) != row.works || !strings.Contains(string(out), row.says) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// wrong is what Dapr starts with all the same.
const wrong = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: unknown}
spec: {type: state.nowhere, version: v1, ignoreErrors: true}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bad}
spec: {type: bindings.cron, version: v1, ignoreErrors: true, metadata: [{name: schedule, value: never}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: theirs}
spec: {type: pubsub.in-memory, version: v1}
scopes: [other]
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: s}
spec: {pubsubname: theirs, topic: a, route: /a}
`
