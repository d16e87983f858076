package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/penstock-io/penstock/fault"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"169.254.169.254":          true,
		"169.254.0.1":              true,
		"::ffff:169.254.169.254":   true,
		"::ffff:a9fe:a9fe":         true,
		"fe80::1":                  true,
		"fe80::1%eth0":             true,
		"febf:ffff::1":             true,
		"fec0::1":                  false,
		"fd00:ec2::254":            true,
		"fd20:ce::254":             true,
		"fd00:ec2::253":            false,
		"0.0.0.0":                  true,
		"0.1.2.3":                  true,
		"::":                       true,
		"::ffff:0.0.0.0":           true,
		"64:ff9b::169.254.169.254": true,
		"64:ff9b::8.8.8.8":         false,
		"2002:a9fe:a9fe::1":        true,
		"2002:808:808::1":          false,
		"::169.254.169.254":        true,
		"100.100.100.200":          true,
		"168.63.129.16":            true,
		"192.0.0.192":              true,
		"224.0.0.1":                true,
		"ff02::1":                  true,
		"255.255.255.255":          true,
		"127.0.0.1":                false,
		"::1":                      false,
		"::ffff:127.0.0.1":         false,
		"10.0.0.1":                 false,
		"8.8.8.8":                  false,
		"2001:4860:4860::8888":     false,
	} {
		if got := refused(netip.MustParseAddr(address)); got != want {
			t.Errorf("refused(%s) = %v, want %v", address, got, want)
		}
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, address string
		allow, ok     bool
	}{
		{"metadata", "169.254.169.254:80", false, false},
		{"metadata allowed", "169.254.169.254:80", true, true},
		{"mapped", "[::ffff:169.254.169.254]:80", false, false},
		{"zone", "[fe80::1%lo]:80", false, false},
		{"not an address", "metadata.internal:80", false, false},
		{"loopback", "127.0.0.1:80", false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := Guard(row.allow)("tcp", row.address, nil)
			if (err == nil) != row.ok {
				t.Fatalf("Guard(%v)(%s) = %v", row.allow, row.address, err)
			}
			if err != nil && fault.KindOf(err) != fault.Denied {
				t.Errorf("kind %v, want denied", fault.KindOf(err))
			}
		})
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(server.Close)
	transport := NewTransport(Options{ConnectTimeout: time.Second})
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}

	get := func(url string) (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := ReadBody(res.Body, 10)
		return string(body), err
	}
	if body, err := get(server.URL); err != nil || body != "hello" {
		t.Errorf("loopback: %q, %v", body, err)
	}
	for _, url := range []string{
		"http://169.254.169.254/latest/meta-data", "http://[::ffff:169.254.169.254]/", "http://0.0.0.0:1/", "http://[fd00:ec2::254]/",
		"http://[::]/",
	} {
		_, err := get(url)
		if err == nil || fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "allowLinkLocal") {
			t.Errorf("%s: %v (kind %v), want a denial that names the option", url, err, fault.KindOf(err))
		}
	}
}

func TestProxyChecksLiterals(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	transport := NewTransport(Options{UseProxy: true})
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://169.254.169.254/", nil)
	if _, err := transport.Proxy(req); fault.KindOf(err) != fault.Denied {
		t.Errorf("literal metadata address through a proxy: %v, want denied", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":            0,
		"7":           7 * time.Second,
		" 7 ":         7 * time.Second,
		"-7":          0,
		"soon":        0,
		"99999999999": 24 * time.Hour,
		now.Add(time.Minute).Format(http.TimeFormat):    time.Minute,
		now.Add(-time.Minute).Format(http.TimeFormat):   0,
		now.Add(99 * time.Hour).Format(http.TimeFormat): 24 * time.Hour,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("RetryAfter(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestReadBody(t *testing.T) {
	t.Parallel()
	if got, err := ReadBody(strings.NewReader("12345"), 5); err != nil || string(got) != "12345" {
		t.Errorf("at the limit: %q, %v", got, err)
	}
	got, err := ReadBody(strings.NewReader("123456"), 5)
	if string(got) != "12345" || fault.KindOf(err) != fault.Exhausted || err == nil {
		t.Errorf("above the limit: %q, %v", got, err)
	}
	if _, err := ReadBody(iotest.ErrReader(errors.New("cut")), 5); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("broken: %v", err)
	}
	if _, err := ReadBody(iotest.ErrReader(context.DeadlineExceeded), 5); fault.KindOf(err) != fault.Timeout {
		t.Errorf("late: %v", err)
	}
}
