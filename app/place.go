package app

import (
	"net"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// CheckPlace refuses a port, a host or a token that no channel can use, with an
// error of kind invalid that names it.
func CheckPlace(port int, address, token string) error {
	switch {
	case port < 1 || port > 65535:
		return fault.New(fault.Invalid, "app port %d: want 1 to 65535", port)
	case net.ParseIP(address) == nil && strings.ContainsAny(address, "/:@?# \t\r\n"):
		return fault.New(fault.Invalid, "app address %q: want a host name or IP address alone", address)
	case strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }):
		return fault.New(fault.Invalid, "app API token: it holds characters that no header can carry")
	}
	return nil
}

// IsLoopback tells whether an app at this host is on this machine, so that its
// certificate, usually self-signed, is not checked.
func IsLoopback(address string) bool {
	ip := net.ParseIP(address)
	return strings.EqualFold(address, "localhost") || ip != nil && ip.IsLoopback()
}
