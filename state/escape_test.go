package state

import (
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestEscaped(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"": "=", "aZ09": "=aZ09", "a/b": "=a=2fb", "=a": "==3da", "a|b-c": "=a|b=2dc", "é\x00": "==c3=a9=00",
	} {
		if got := Escaped(key, "|"); got != want {
			t.Errorf("%q is %q, want %q", key, got, want)
		}
	}
}

// TestEscapedIsUnique reads back what was written.
func TestEscapedIsUnique(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := string(rapid.SliceOf(rapid.Byte()).Draw(t, "key"))
		var b strings.Builder
		rest := Escaped(key, "-_|")[1:]
		for rest != "" {
			if rest[0] != '=' {
				b.WriteByte(rest[0])
				rest = rest[1:]
				continue
			}
			c, err := hex.DecodeString(rest[1:3])
			if err != nil {
				t.Fatal(err)
			}
			b.Write(c)
			rest = rest[3:]
		}
		if b.String() != key {
			t.Fatalf("%q reads back as %q", key, b.String())
		}
	})
}
