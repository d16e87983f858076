package expr

import "testing"

// Only what JSON takes for space may follow a value, in whichever way it is read.
func TestDecodeTakesOneValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"1 \t\r\n": true, "1\u00a0": false, "1 2": false, "": false,
		"12345678901234567890 \n": true, "12345678901234567890\u00a0": false, "12345678901234567890 2": false,
	} {
		for _, n := range []numbers{forCEL, forJQ} {
			if _, ok := decode([]byte(text), n); ok != want {
				t.Errorf("decode %q (%v): %v, want %v", text, n, ok, want)
			}
		}
	}
}
