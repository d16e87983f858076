package middleware

import (
	"net/url"
	"strings"
)

// Path returns the one reading of a request's path: the path as it was
// sent, still escaped. Nothing is cleaned or decoded before the handler is
// chosen, so two spellings of a path are two paths, and only one is a route.
// Names are decoded once, by the handler that takes them.
//
// What may not stand in a path unescaped is escaped, and the rest is left as it
// was sent: EscapedPath of package url would decode everything and escape it
// anew, which makes a slash of %2F as soon as there is, say, a quotation mark
// behind it.
func Path(u *url.URL) string {
	p := u.RawPath
	if p == "" {
		p = u.EscapedPath()
	}
	if p == "" {
		return "/"
	}
	for i := range len(p) {
		if !pathByte(p[i]) {
			return escaped(p, i)
		}
	}
	return p
}

// pathByte tells whether a byte may stand in a path, the sign of an escape among
// them.
func pathByte(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte("\"#<>?\\^`{|}", c) < 0
}

func escaped(p string, from int) string {
	const digits = "0123456789ABCDEF"
	b := append(make([]byte, 0, len(p)+16), p[:from]...)
	for i := from; i < len(p); i++ {
		if c := p[i]; pathByte(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}
