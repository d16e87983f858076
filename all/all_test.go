package all

import (
	"slices"
	"testing"
)

// TestFinderFindsEach finds each component under all its names and versions: none
// hides another, as a second name that is also another's first one would.
func TestFinderFindsEach(t *testing.T) {
	t.Parallel()
	finder := Finder(func(string) (string, bool) { return t.TempDir(), true })
	for _, d := range Components() {
		for _, name := range slices.Concat([]string{d.Type}, d.About.Also) {
			for _, version := range append(d.Versions, "") {
				found, err := finder.Find(name, version)
				if err != nil || found.Type != d.Type {
					t.Errorf("%s version %q: found %q, %v, want %s", name, version, found.Type, err, d.Type)
				}
			}
		}
	}
	if d, err := finder.Find("pubsub.no-such-thing", "v1"); err == nil {
		t.Errorf("found %s under a name that none has", d.Type)
	}
}
