package http_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server and returns its address; stop ends it and returns what
// Run returned.
func serve(t *testing.T, h http.Handler, o apihttp.ServerOptions) (addr string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- apihttp.NewServer(h, o).Run(ctx, l) }()
	stopped := false
	stop = func() error {
		stopped = true
		cancel()
		return <-result
	}
	t.Cleanup(func() {
		if !stopped {
			must(t, stop())
		}
	})
	return l.Addr().String(), stop
}

// talk sends bytes and returns the first answer; rest is what follows it.
func talk(t *testing.T, addr, request string) (status int, body string, rest *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, request)
	must(t, err)
	rest = bufio.NewReader(c)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(rest, &http.Request{Method: method})
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b), rest
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	i := start(t)
	addr, _ := serve(t, i.handler(apihttp.Options{MaxBody: 1000}), apihttp.ServerOptions{})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	for size, want := range map[int]int{10: 204, 1000: 204, 1001: 400} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/v1.0/publish/bus/t", strings.NewReader(strings.Repeat("x", size)))
		must(t, err)
		resp, err := tr.RoundTrip(r)
		must(t, err)
		_ = resp.Body.Close()
		if resp.StatusCode != want || resp.ProtoMajor != 2 {
			t.Errorf("%d bytes: %s %d, want %d", size, resp.Proto, resp.StatusCode, want)
		}
	}
}

func TestSlowBody(t *testing.T) {
	t.Parallel()
	i := start(t)
	addr, _ := serve(t, i.handler(apihttp.Options{}), apihttp.ServerOptions{ReadTimeout: 50 * time.Millisecond})
	status, body, _ := talk(t, addr, "POST /v1.0/publish/bus/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
	if status != 400 || !strings.Contains(body, "took too long") || len(i.broker.all()) > 0 {
		t.Errorf("%d %s", status, body)
	}
}

// The limit on reading is none on working.
func TestSlowWork(t *testing.T) {
	t.Parallel()
	for _, logging := range []bool{false, true} {
		i := start(t)
		i.broker.slow = 150 * time.Millisecond
		addr, _ := serve(t, i.limited(apihttp.Options{}, api.Surface{Log: api.CallLog{Enabled: logging}}), apihttp.ServerOptions{ReadTimeout: 50 * time.Millisecond})
		status, body, _ := talk(t, addr, "POST /v1.0/publish/bus/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
		if status != 204 {
			t.Errorf("%d %s", status, body)
		}
	}
}

func TestStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	addr, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		if r.Context().Err() != nil {
			t.Error("the request's context ended within the drain time")
		}
		w.WriteHeader(204)
	}), apihttp.ServerOptions{Drain: 10 * time.Second})
	answer := make(chan int, 1)
	go func() {
		status, _, _ := talk(t, addr, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		answer <- status
	}()
	<-begun
	result := make(chan error, 1)
	go func() { result <- stop() }()
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			tick.Stop()
			break // no longer taking
		}
		_ = c.Close()
	}
	close(finish)
	if status := <-answer; status != 204 {
		t.Errorf("%d", status)
	}
	must(t, <-result)
}

func TestStopCutsWhatDoesNotFinish(t *testing.T) {
	t.Parallel()
	i := start(t)
	addr, stop := serve(t, i.handler(apihttp.Options{}), apihttp.ServerOptions{Drain: 30 * time.Millisecond})
	c, err := net.Dial("tcp", addr)
	must(t, err)
	_, err = io.WriteString(c, "POST /v1.0/publish/bus/hangs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
	must(t, err)
	<-i.broker.entered()
	must(t, stop())
	must(t, c.Close())
}

// Clients open connections in advance; nobody waits for those.
func TestStopDoesNotWaitForUnusedConnections(t *testing.T) {
	t.Parallel()
	const drain = time.Minute
	addr, stop := serve(t, start(t).handler(apihttp.Options{}), apihttp.ServerOptions{Drain: drain})
	unused, err := net.Dial("tcp", addr)
	must(t, err)
	if status, _, _ := talk(t, addr, "GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 204 {
		t.Errorf("%d", status)
	}
	begin := time.Now()
	must(t, stop())
	if took := time.Since(begin); took > drain/2 {
		t.Errorf("stopping took %v", took)
	}
	must(t, unused.Close())
}

func TestBrokenListener(t *testing.T) {
	t.Parallel()
	broken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, broken.Close())
	good, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	err = apihttp.NewServer(http.NotFoundHandler(), apihttp.ServerOptions{}).Run(t.Context(), good, broken)
	if err == nil || !strings.Contains(err.Error(), "serve http on "+broken.Addr().String()) {
		t.Errorf("%v", err)
	}
	if _, err := good.Accept(); err == nil {
		t.Error("the other listener is still open")
	}
}
