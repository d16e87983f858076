package contract

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// What a Configuration takes away is gone, and back when the file says so,
// without a restart; calls are logged in Dapr's words as it says.
func TestAPIRules(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
	sc := start(t, setup{resources: buses, config: head +
		"  api: {denied: [{name: publish, version: v1.0, protocol: http}]}\n" +
		"  logging: {apiLogging: {enabled: true, obfuscateURLs: true, omitHealthChecks: true}}\n"})
	checkProblem(t, send(t, request{url: sc.api + "/publish/mem/secret-topic"}), 404, "ERR_API_DENIED", "")
	sc.logged(t, regexp.MustCompile(`level=info msg="HTTP API Called" .*method="POST /v1.0/publish/\{bus\}/\*"`))
	if log := sc.log.String(); strings.Contains(log, "secret-topic") || strings.Contains(log, "GET /v1.0/healthz") {
		t.Errorf("the log says too much:\n%s", log)
	}
	write(t, filepath.Join(sc.dir, "config.yaml"), head+
		"  api: {allowed: [{name: publish, version: v1.0, protocol: http}]}\n  logging: {apiLogging: {enabled: true}}\n")
	eventually(t, "the new Configuration is in use", func() bool {
		return send(t, request{url: sc.api + "/publish/mem/plain-topic"}).status == 204
	})
	checkProblem(t, get(t, sc.api+"/metadata"), 404, "ERR_API_DENIED", "")
	if r := get(t, sc.api+"/healthz"); r.status != 204 {
		t.Errorf("health: %d", r.status)
	}
	sc.logged(t, regexp.MustCompile(`method="POST /v1.0/publish/mem/plain-topic"`))
	sc.logged(t, regexp.MustCompile(`method="GET /v1.0/healthz"`))
}

// The flag wins over the Configuration, in both directions.
func TestAPILoggingFlag(t *testing.T) {
	t.Parallel()
	const off = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {logging: {apiLogging: {enabled: false}}}\n"
	for _, row := range []struct {
		flag   string
		config string
		logged bool
	}{
		{"--enable-api-logging", off, true},
		{"--enable-api-logging=false", strings.ReplaceAll(off, "false", "true"), false},
	} {
		t.Run(row.flag, func(t *testing.T) {
			t.Parallel()
			sc := start(t, setup{resources: buses, config: row.config, flags: []string{row.flag}})
			sc.signal(t, syscall.SIGTERM)
			sc.exit(t) // a call is logged after it is answered
			if got := strings.Contains(sc.log.String(), "HTTP API Called"); got != row.logged {
				t.Errorf("logged: %v, want %v", got, row.logged)
			}
		})
	}
}

// The profiles are on a port of their own, on loopback, when they are asked for.
func TestProfilingPort(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses, flags: []string{"--enable-profiling", "--profile-port", "0"}})
	address := sc.address(t, "HTTP profiling server listening")
	if !strings.HasPrefix(address, "127.0.0.1:") {
		t.Errorf("profiles on %s", address)
	}
	if r := get(t, "http://"+address+"/debug/pprof/goroutine?debug=1"); r.status != 200 || !strings.Contains(r.body, "goroutine profile") {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, url := range []string{"http://" + address + "/v1.0/metadata", sc.api + "/../debug/pprof/", strings.TrimSuffix(sc.api, "/v1.0") + "/debug/pprof/"} {
		if r := get(t, url); r.status != 404 {
			t.Errorf("%s: %d %s", url, r.status, r.body)
		}
	}
}

// The API listens on every address that is given, IPv6 in brackets or not, and
// answers to each as a host.
func TestListenAddresses(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6 loopback")
	}
	l.Close()
	sc := launch(t, setup{resources: buses, flags: []string{"--dapr-listen-addresses", "127.0.0.1, [::1],127.0.0.2,::1"}})
	line := regexp.MustCompile(`HTTP server listening.* address=(\S+)`)
	eventually(t, "four addresses", func() bool { sc.alive(t); return len(line.FindAllString(sc.log.String(), -1)) == 4 })
	var hosts []string
	for _, m := range line.FindAllStringSubmatch(sc.log.String(), -1) {
		host, _, _ := net.SplitHostPort(m[1])
		hosts = append(hosts, host)
		eventually(t, "health on "+m[1], func() bool { return get(t, "http://"+m[1]+"/v1.0/healthz").status == 204 })
	}
	if want := []string{"127.0.0.1", "::1", "127.0.0.2", "::1"}; !slices.Equal(hosts, want) {
		t.Errorf("listens on %v, want %v", hosts, want)
	}
}

// The socket is for its owner, and for its group if the umask says so; one that a killed process left behind
// is replaced, one that is in use and what is no socket are not.
func TestUnixSocketFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "dapr-shop-http.socket")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: file, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	sc := launch(t, setup{resources: buses, flags: []string{"--unix-domain-socket", dir}})
	sc.logged(t, regexp.MustCompile("Penstock is up"))
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if perm := info.Mode().Perm(); perm&^0o060 != 0o600 {
		t.Errorf("%v: want nothing for others", perm)
	}
	second := launch(t, setup{resources: buses, flags: []string{"--unix-domain-socket", dir}})
	if code := second.exit(t); code != 1 || !strings.Contains(second.log.String(), "another process serves it") {
		t.Errorf("second process: %d", code)
	}
	sc.signal(t, syscall.SIGTERM)
	if code := sc.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the socket is left behind")
	}
	write(t, file, "keep me")
	third := launch(t, setup{resources: buses, flags: []string{"--unix-domain-socket", dir}})
	if code := third.exit(t); code != 1 || !strings.Contains(third.log.String(), "no socket") {
		t.Errorf("a file in the way: %d", code)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "keep me" {
		t.Errorf("the file in the way: %q, %v", text, err)
	}
}
