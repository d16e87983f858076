// Package http is how Penstock calls other people's web servers: the transport
// behind the bindings that send HTTP requests.
//
// A binding makes one transport with [NewTransport] when it opens and closes
// its idle connections when it closes. [Guard] is the check behind it, for a
// dialer of one's own. [RetryAfter] and [ReadBody] read what a server answers.
//
// The package promises that no connection is opened to a link-local or
// cloud-metadata address unless that is allowed: the check is made on the
// address that is about to be dialled, after names are resolved, so neither a
// redirect nor a changing DNS answer gets around it. Loopback and private
// networks are allowed.
package http

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Options configure [NewTransport]. The zero value is a sensible transport
// that refuses link-local addresses and uses no proxy.
type Options struct {
	// AllowLinkLocal switches the address check off.
	AllowLinkLocal bool
	// ConnectTimeout bounds dialling one server, 10 s when zero; the TLS
	// handshake has the same bound of its own.
	ConnectTimeout time.Duration
	// HeaderTimeout bounds the wait for the head of an answer after the request
	// is written; zero leaves it to the request's context.
	HeaderTimeout time.Duration
	// MaxConns bounds the connections to one host, 256 when zero. More requests
	// wait.
	MaxConns int
	// MaxIdle bounds the idle connections kept to one host, 64 when zero.
	MaxIdle int
	// TLS is the TLS configuration; nil means the defaults of crypto/tls.
	TLS *tls.Config
	// UseProxy takes the proxy from HTTP_PROXY, HTTPS_PROXY and NO_PROXY. The
	// proxy resolves names then, so only URLs with a literal address are
	// checked here; names are the proxy's business.
	UseProxy bool
}

// NewTransport returns a transport of its own, with HTTP/2 over TLS, that the
// caller ends with CloseIdleConnections. Answers with more than 64 KiB of
// headers are refused. Gzip is not asked for and not inflated. A refused
// address is an error of kind Denied.
func NewTransport(o Options) *http.Transport {
	connect := orElse(o.ConnectTimeout, 10*time.Second)
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second, Control: Guard(o.AllowLinkLocal)}
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        o.TLS,
		TLSHandshakeTimeout:    connect,
		ResponseHeaderTimeout:  o.HeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    orElse(o.MaxIdle, 64),
		MaxConnsPerHost:        orElse(o.MaxConns, 256),
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	if o.UseProxy {
		t.Proxy = func(r *http.Request) (*url.URL, error) {
			proxy, err := http.ProxyFromEnvironment(r)
			if proxy == nil || err != nil || o.AllowLinkLocal {
				return proxy, err
			}
			if ip, err := netip.ParseAddr(r.URL.Hostname()); err == nil && refused(ip) {
				return nil, denied(ip)
			}
			return proxy, nil
		}
	}
	return t
}

func orElse[T int | time.Duration](v, other T) T {
	if v > 0 {
		return v
	}
	return other
}

// Guard returns the Control function of a [net.Dialer]. Unless allowLinkLocal,
// it refuses to connect to link-local addresses, the metadata services of the
// large clouds and the unspecified address, in every form that reaches them
// (IPv4 inside IPv6, NAT64, 6to4, with a zone). The error has kind Denied.
func Guard(allowLinkLocal bool) func(network, address string, c syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		if allowLinkLocal {
			return nil
		}
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fault.New(fault.Denied, "check address %q: %w", address, err)
		}
		if refused(ap.Addr()) {
			return denied(ap.Addr())
		}
		return nil
	}
}

func denied(ip netip.Addr) error {
	return fault.New(fault.Denied, "connect to %s: link-local and metadata addresses are refused unless allowLinkLocal is set", ip)
}

// refused tells whether ip is one that a binding must not be lured to.
func refused(ip netip.Addr) bool {
	ip = ip.WithZone("").Unmap()
	if ip.Is4() {
		return refused4(ip)
	}
	if ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return true
	}
	b := ip.As16()
	switch {
	case ip == netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x0e, 3: 0xc2, 14: 0x02, 15: 0x54}): // AWS, fd00:ec2::254
		return true
	case ip == netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x20, 3: 0xce, 14: 0x02, 15: 0x54}): // Google, fd20:ce::254
		return true
	case b[0] == 0x20 && b[1] == 0x02: // 6to4, 2002:<v4>::/48
		return refused4(netip.AddrFrom4([4]byte(b[2:6])))
	case b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b: // NAT64, 64:ff9b::/96
		return refused4(netip.AddrFrom4([4]byte(b[12:16])))
	case [12]byte(b[:12]) == [12]byte{} && ip != netip.IPv6Loopback(): // ::<v4>, deprecated but routed by some
		return refused4(netip.AddrFrom4([4]byte(b[12:16])))
	}
	return false
}

func refused4(ip netip.Addr) bool {
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.As4()[0] == 0 {
		return true
	}
	switch ip.As4() {
	case [4]byte{100, 100, 100, 200}, // Alibaba Cloud
		[4]byte{168, 63, 129, 16}, // Azure
		[4]byte{192, 0, 0, 192},   // Oracle Cloud
		[4]byte{255, 255, 255, 255}:
		return true
	}
	return false
}
