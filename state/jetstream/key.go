package jetstream

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/penstock-io/penstock/state"
)

const (
	separator = "||"
	// mark begins a key in our own form; Dapr's form of a key never does.
	mark = '='
	// mostKey is the longest key that goes as it is, in bytes: the server closes
	// a connection with longer lines than its limit, 4 KiB usually.
	mostKey = 1024
)

// stored is the key under which an item is kept: Dapr's form, where the key has
// one that no other key has, else our own. Two keys never have the same.
func stored(key string) string {
	if plain, ok := dapr(key); ok {
		return plain
	}
	if coded := state.Escaped(key, "-_/"); len(coded) <= mostKey {
		return coded
	}
	sum := sha256.Sum256([]byte(key))
	return string(mark) + string(mark) + "sha256." + hex.EncodeToString(sum[:]) // no escape has a dot
}

// dapr is Dapr's form of a key, which has a dot for ||, if it can be told from
// that of every other key and JetStream takes it.
func dapr(key string) (string, bool) {
	prefix, rest, prefixed := strings.Cut(key, separator)
	plain := key
	if prefixed {
		plain = prefix + "." + rest
	}
	switch {
	case plain == "" || plain[0] == mark || len(plain) > mostKey:
		return "", false
	case prefixed && (prefix == "" || strings.Contains(prefix, ".")): // whose dot is it?
		return "", false
	case plain[0] == '.' || plain[len(plain)-1] == '.' || strings.Contains(plain, ".."):
		return "", false
	}
	for i := range len(plain) {
		if c := plain[i]; !letter(c) && strings.IndexByte("-_/.=", c) < 0 {
			return "", false
		}
	}
	return plain, true
}

// letter tells whether a byte is a letter or a digit.
func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
