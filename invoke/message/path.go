package message

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/fault"
)

// Path returns the one spelling of a method of an app: escaped as it was sent,
// without slashes in front. raw may be a path of HTTP or a method's name of gRPC;
// what may not stand in a path unescaped is escaped. The end keeps its slash.
//
// A path that two readers could understand differently is an error of kind
// invalid, not mended: one with an empty step or one of dots, also with parameters
// behind a semicolon, with a backslash, a control character, #, ? or % in its
// plain form, with a bad escape, or that is not UTF-8. So is one of more than
// 64 KiB.
func Path(raw string) (string, error) {
	if len(raw) > maxPath {
		return "", fault.New(fault.Invalid, "read method %.80q...: it has %d bytes, the limit is %d", raw, len(raw), maxPath)
	}
	path := escape(strings.TrimLeft(raw, "/"))
	plain, err := url.PathUnescape(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "read method %.200q: bad escape", raw)
	}
	switch {
	case !utf8.ValidString(plain):
		return "", fault.New(fault.Invalid, "read method %.200q: it is not UTF-8", raw)
	case strings.HasPrefix(plain, "/") || strings.Contains(plain, "//"):
		return "", fault.New(fault.Invalid, "read method %.200q: it has an empty step", raw)
	}
	if i := strings.IndexFunc(plain, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`#?\%`, r) }); i >= 0 {
		return "", fault.New(fault.Invalid, "read method %.200q: %q may not be in it, not even escaped", raw, plain[i])
	}
	for step := range strings.SplitSeq(plain, "/") {
		name, _, parameters := strings.Cut(step, ";") // some servers leave what is behind it out
		if name == "." || name == ".." || name == "" && parameters {
			return "", fault.New(fault.Invalid, "read method %.200q: a step is %.80s", raw, step)
		}
	}
	return path, nil
}

// maxPath bounds a path, in bytes.
const maxPath = 64 << 10

// Plain returns the plain form of what [Path] returned, which is what access is
// decided on and what a method is called over gRPC.
func Plain(path string) string {
	plain, err := url.PathUnescape(path)
	if err != nil { // cannot be: Path has seen it
		return path
	}
	return plain
}

// escape escapes what may not stand in a path, and leaves escapes alone.
func escape(s string) string {
	bad := 0
	for i := range len(s) {
		if !pathByte(s[i]) {
			bad++
		}
	}
	if bad == 0 {
		return s
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*bad)
	for i := range len(s) {
		if c := s[i]; pathByte(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// pathByte tells whether a byte may stand in a path, the sign of an escape among
// them.
func pathByte(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte("\"#<>?\\^`{|}", c) < 0
}
