package etcd

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/config"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	good := []config.Item{{Name: "endpoints", Value: "a:1,b:2"}, {Name: "keyPrefixPath", Value: "settings"}}
	if ps := Component.Check(good); len(ps) > 0 {
		t.Errorf("good options: %v", ps)
	}
	for name, bad := range map[string][]config.Item{
		"endpoints": {{Name: "endpoints", Value: ""}},
		"key":       {{Name: "endpoints", Value: "a:1"}, {Name: "tlsEnable", Value: "true"}, {Name: "key", Value: "-----BEGIN NOTHING-----"}},
	} {
		if ps := Component.Check(bad); len(ps) == 0 || !strings.Contains(ps.Error(), name) {
			t.Errorf("%v: %v, want a word about %s", bad, ps, name)
		}
	}
}

func TestWhole(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][2]string{"": {"\x00", "\x00"}, "a/": {"a/", "a0"}} {
		s := &store{path: path}
		if from, end := s.whole(); from != want[0] || end != want[1] {
			t.Errorf("%q: from %q to %q, want %q", path, from, end, want)
		}
	}
}
