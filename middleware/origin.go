package middleware

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Hosts are the names that a server answers to. A page of another site that got
// its name to point here (DNS rebinding) is told apart by them.
type Hosts struct {
	any   bool
	names []string // lower case
}

// NewHosts allows names besides those of the loopback interface and the address
// that a connection came in on; "*" allows every name, empty ones are ignored.
func NewHosts(allowed []string) Hosts {
	var hs Hosts
	for _, name := range allowed {
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case "":
		case "*":
			hs.any = true
		default:
			hs.names = append(hs.names, strings.Trim(name, "[]"))
		}
	}
	return hs
}

// Allow tells whether a request names a host that is served here.
func (hs Hosts) Allow(r *http.Request) bool {
	if hs.any {
		return true
	}
	// A proxy's absolute-form target hides the Host header, even one that names
	// no host; we are no proxy.
	if r.URL.Host != "" || r.URL.Scheme != "" {
		return false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if _, unix := local.(*net.UnixAddr); unix {
		return true // no web page reaches a Unix socket
	}
	name, ok := hostname(r.Host)
	if !ok {
		return false
	}
	if name == "127.0.0.1" || strings.EqualFold(name, "localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		ip = ip.Unmap()
		if ip.IsLoopback() {
			return true
		}
		if tcp, ok := local.(*net.TCPAddr); ok && ip == tcp.AddrPort().Addr().Unmap().WithZone("") {
			return true
		}
	}
	return slices.Contains(hs.names, strings.ToLower(name))
}

// hostname returns the name in a Host header; false when there is none or the
// port is none.
func hostname(host string) (string, bool) {
	name, port := host, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", false
		}
		name, port = host[1:end], host[end+1:]
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		name, port = host[:i], host[i:]
	}
	if port != "" && port[0] != ':' {
		return "", false
	}
	for i := 1; i < len(port); i++ {
		if port[i] < '0' || port[i] > '9' {
			return "", false
		}
	}
	return name, name != ""
}

// OwnPage tells whether a request comes from a page of this very server, or from
// something that is no page: programs send neither Origin nor Sec-Fetch-Site.
func OwnPage(r *http.Request) bool {
	return sameOrigin(r.Header["Origin"], r.Host) && sameSite(r.Header["Sec-Fetch-Site"])
}

// sameOrigin tells whether the page came from the host that is asked.
func sameOrigin(origin []string, host string) bool {
	switch len(origin) {
	case 0:
		return true
	case 1:
		scheme, rest, ok := strings.Cut(origin[0], "://")
		return ok && (scheme == "http" || scheme == "https") && strings.EqualFold(rest, host)
	default:
		return false
	}
}

func sameSite(site []string) bool {
	switch len(site) {
	case 0:
		return true
	case 1:
		return site[0] == "same-origin" || site[0] == "none"
	default:
		return false
	}
}
