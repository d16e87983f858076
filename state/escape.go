package state

import (
	"fmt"
	"strings"
)

// Escaped writes a key that a store cannot take as it is: "=", and then each byte
// that is no letter or digit and not in keep as "=" and two hexadecimal digits.
// Two keys never become the same. A store that keeps other keys as they are must
// also escape those that begin with "=". Keep must not have "=".
func Escaped(key, keep string) string {
	var b strings.Builder
	b.WriteByte('=')
	for i := range len(key) {
		c := key[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}
