package attack

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A flood may not keep anybody else from being served, nor cost more memory than
// this, in bytes, with the flood's own side in the same process.
const floodMemory = 64 << 20

// floods are what is sent on one connection, B17. They end with the connection, or
// when there is enough.
func floods() map[string]func(c net.Conn) error {
	return map[string]func(net.Conn) error{
		"resets":        resets,
		"continuations": continuations,
		"pings": func(c net.Conn) error {
			return repeat(c, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) })
		},
		"settings": func(c net.Conn) error {
			return repeat(c, func(f *http2.Framer) error {
				return f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
			})
		},
		"headers without an end": func(c net.Conn) error {
			_, err := io.WriteString(c, "GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n")
			for n := 0; err == nil && n < 1<<16; n++ {
				_, err = fmt.Fprintf(c, "X-%d: %s\r\n", n, strings.Repeat("x", 1000))
			}
			return err
		},
		"a line without an end": func(c net.Conn) error {
			_, err := io.WriteString(c, "GET /")
			for n := 0; err == nil && n < 1<<12; n++ {
				_, err = c.Write(bytes.Repeat([]byte("x"), 16<<10))
			}
			return err
		},
	}
}

// begun is a framer on a connection that said hello.
func begun(c net.Conn) (*http2.Framer, error) {
	f := http2.NewFramer(c, c)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	return f, f.WriteSettings()
}

func repeat(c net.Conn, one func(*http2.Framer) error) error {
	f, err := begun(c)
	for n := 0; err == nil && n < 200_000; n++ {
		err = one(f)
	}
	return err
}

// head is the beginning of a request for health.
func head() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "localhost"}, {":path", "/v1.0/healthz"}} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // into memory
	}
	return b.Bytes()
}

// resets begins streams and takes them back at once.
func resets(c net.Conn) error {
	f, err := begun(c)
	for id := uint32(1); err == nil && id < 40_000; id += 2 {
		if err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head(), EndHeaders: true, EndStream: true}); err == nil {
			err = f.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	}
	return err
}

// continuations begins one request and never comes to its end.
func continuations(c net.Conn) error {
	f, err := begun(c)
	if err == nil {
		err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head()})
	}
	more := bytes.Repeat([]byte{0x00, 0x01, 'x', 0x01, 'y'}, 3000)
	for n := 0; err == nil && n < 1<<12; n++ {
		err = f.WriteContinuation(1, false, more)
	}
	return err
}

// TestFloods holds that others are served while and after somebody floods each of
// the servers, on several connections that read nothing.
func TestFloods(t *testing.T) {
	w := newWorld(t)
	for _, server := range []string{"callee", "callee-grpc", "callee-internal", "console"} {
		for name, flood := range floods() {
			t.Run(server+"/"+name, func(t *testing.T) { w.flood(t, server, flood) })
		}
	}
}

func (w *world) flood(t *testing.T, server string, flood func(net.Conn) error) {
	const connections, lasts = 4, 300 * time.Millisecond
	before, ended := heap(), make(chan error, connections)
	for range connections {
		c, err := net.Dial("tcp", w.at[server])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(lasts))
		go func() { ended <- flood(c) }()
	}
	w.served(t)
	grown := heap() - before
	for range connections {
		<-ended // cut off, or at its end
	}
	w.served(t)
	if grown > floodMemory {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

// heap is how much memory is held by somebody.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// served holds that both APIs answer, and soon.
func (w *world) served(t *testing.T) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + w.at["callee"] + "/v1.0/healthz")
	if err != nil {
		t.Fatalf("others are not served: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("others are answered with %s", resp.Status)
	}
	if got := call(t, w.at["callee-grpc"], row{Call: "/dapr.proto.runtime.v1.Dapr/GetMetadata", Message: "{}"}); got.code != "OK" {
		t.Fatalf("others are answered with %s over gRPC: %s", got.code, got.text)
	}
}

// TestIdleConnections holds that many who say nothing, or the beginning of something,
// keep nobody from being served.
func TestIdleConnections(t *testing.T) {
	w := newWorld(t)
	const many = 300
	for _, server := range []string{"callee", "callee-grpc", "callee-internal", "console"} {
		for n := range many {
			c, err := net.Dial("tcp", w.at[server])
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, []string{"", "P", "PRI * HT", "GET / HTTP/1.1\r\nHost: loc", "PENSTOCK/1 dir"}[n%5]); err != nil {
				t.Fatal(err)
			}
		}
		w.served(t)
	}
}
