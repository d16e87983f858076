package http

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/api"
)

// tokenHeader is the one place a token may stand.
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
	if len(h.tokens) > 0 && !exempt(r.Method, path) && !h.hasToken(r) {
		respondError(w, api.Errorf(api.Unauthenticated, "check api token: the header dapr-api-token is missing or wrong"))
		return true
	}
	return false
}

func hashes(tokens []string) [][sha256.Size]byte {
	var hs [][sha256.Size]byte
	for _, t := range tokens {
		if t != "" {
			hs = append(hs, sha256.Sum256([]byte(t)))
		}
	}
	return hs
}

// hasToken takes the same time for every wrong token of one length.
func (h *handler) hasToken(r *http.Request) bool {
	given := r.Header[tokenHeader]
	if len(given) != 1 {
		return false
	}
	sum := sha256.Sum256([]byte(given[0]))
	ok := 0
	for i := range h.tokens {
		ok |= subtle.ConstantTimeCompare(h.tokens[i][:], sum[:])
	}
	return ok == 1
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
