package zookeeper

import (
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/state"
)

// mark begins a name in our own form; Dapr's form of a key never does.
const mark = "="

// node is the path of a key's node.
func (s *store) node(key string) string { return s.root + name(key) }

// name is the name of a key's node: the key itself, where that is the name of a
// node, else our own form. Two keys never have the same.
func name(key string) string {
	if legal(key) && !strings.HasPrefix(key, mark) && key != "zookeeper" { // which is the server's own
		return key
	}
	return state.Escaped(key, "!\"#$%&'()*+,-:;<>?@[\\]^_`{|}~")
}

// legal tells whether a text can be the name of a node, in every version of
// ZooKeeper.
func legal(text string) bool {
	if text == "" || text == "." || text == ".." || !utf8.ValidString(text) {
		return false
	}
	return strings.IndexFunc(text, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0 || r == '/' || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0
	}) < 0
}

// keyOf is the key that a name stands for; false when it is none of ours.
func keyOf(name string) (string, bool) {
	coded, ours := strings.CutPrefix(name, mark)
	if !ours {
		return name, name != "zookeeper"
	}
	var b strings.Builder
	for i := 0; i < len(coded); i++ {
		if coded[i] != '=' {
			b.WriteByte(coded[i])
			continue
		}
		c, err := hex.DecodeString(coded[i+1 : min(i+3, len(coded))])
		if err != nil || len(c) != 1 {
			return "", false
		}
		b.Write(c)
		i += 2
	}
	return b.String(), true
}

// page returns the keys with a prefix that come after token, and the token for
// those behind the first limit.
func page(names []string, prefix, token string, limit int) (keys []string, next string) {
	for _, n := range names {
		if key, ok := keyOf(n); ok && strings.HasPrefix(key, prefix) && key > token {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) <= limit {
		return keys, ""
	}
	return keys[:limit], keys[limit-1]
}
