package http

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/api"
)

// tokenHeader is api.TokenHeader as net/http spells it.
const tokenHeader = "Dapr-Api-Token"

// guard answers requests that must go no further: those for another host, from
// a foreign web page or without the token. It tells whether it answered.
func (h *handler) guard(w http.ResponseWriter, r *http.Request, path string) (done bool) {
	if !h.hosts.allow(r) {
		respondError(w, api.Errorf(api.PermissionDenied,
			"host %q is not served here; use a loopback address or add the name to the allowed hosts", cut(r.Host)))
		return true
	}
	if done := h.checkOrigin(w, r); done {
		return true
	}
	if exempt(r.Method, path) {
		return false
	}
	if err := h.tokens.Check(r.Header[tokenHeader]); err != nil {
		respondError(w, err)
		return true
	}
	return false
}

// hosts are the names this server answers to. A page of another site that got
// its name to point here (DNS rebinding) is told apart by them.
type hosts struct {
	any   bool
	names []string // lower case
}

func newHosts(allowed []string) hosts {
	var hs hosts
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

func (hs hosts) allow(r *http.Request) bool {
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
