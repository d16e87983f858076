package http

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
)

// FuzzGuard: the check of a URL's text and the check when a connection opens say
// the same of every address, however it is written, and of an address of IPv4 the
// same in every form of IPv6 that reaches it.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		"127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "fe80::1%25lo", "2002:a9fe:a9fe::1", "64:ff9b::169.254.169.254",
		"::169.254.169.254", "0.0.0.0", "::", "::1", "fd00:ec2::254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "224.0.0.1",
	} {
		f.Add(seed)
	}
	f.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // which counts unless somebody asked before
	transport := NewTransport(Options{UseProxy: true})
	check := Guard(false)
	refuses := func(ip netip.Addr) bool { return check("tcp", net.JoinHostPort(ip.String(), "80"), nil) != nil }
	f.Fuzz(func(t *testing.T, host string) {
		u, err := url.Parse("http://" + net.JoinHostPort(host, "80") + "/")
		if err != nil {
			return
		}
		ip, err := netip.ParseAddr(u.Hostname())
		if err != nil {
			if check("tcp", u.Host, nil) == nil {
				t.Fatalf("%q is no address, and a connection to it may open", u.Host)
			}
			return
		}
		proxy, denied := transport.Proxy(&http.Request{Method: http.MethodGet, URL: u, Host: u.Host})
		if (proxy != nil || denied != nil) && (denied != nil) != refuses(ip) {
			t.Fatalf("%s: by its text %v, when it is dialled %v", ip, denied, refuses(ip))
		}
		ip4 := ip.Unmap()
		if !ip4.Is4() {
			return
		}
		b := ip4.As4()
		for _, form := range [][16]byte{
			{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]},
			{0: 0x20, 1: 0x02, 2: b[0], 3: b[1], 4: b[2], 5: b[3], 15: 1},
			{1: 0x64, 2: 0xff, 3: 0x9b, 12: b[0], 13: b[1], 14: b[2], 15: b[3]},
		} {
			if other := netip.AddrFrom16(form); refuses(ip4) && !refuses(other) {
				t.Fatalf("%s is refused, and %s, which reaches it, is not", ip4, other)
			}
		}
	})
}
