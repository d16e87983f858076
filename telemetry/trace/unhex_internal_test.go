package trace

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestUnhex(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		text := string([]byte{byte(c), '7'})
		want, err := hex.DecodeString(text)
		ok := err == nil && strings.ToLower(text) == text
		got := make([]byte, 1)
		switch fine := unhex(got, text); {
		case fine != ok:
			t.Errorf("%q is read: %t", text, fine)
		case ok && got[0] != want[0]:
			t.Errorf("%q is %d, want %d", text, got[0], want[0])
		}
	}
}

// BenchmarkParse reads ids that are random, as they come.
func BenchmarkParse(b *testing.B) {
	var contexts [4096]Context
	for i := range contexts {
		contexts[i].Parent = unsampled(newTraceID())
	}
	for n := 0; b.Loop(); n++ {
		if !contexts[n%len(contexts)].parse().IsValid() {
			b.Fatal("not read")
		}
	}
}
