package redis

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/test/conform"
)

// The fake server tells nobody of changes, so the test does in its place.
func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	var s *miniredis.Miniredis // of the case that runs
	conform.Configuration(t, Component, conform.ConfigurationSetup{
		Options: func(t *testing.T) map[string]string {
			s = miniredis.RunT(t)
			return map[string]string{"redisHost": s.Addr()}
		},
		Wrong: map[string]map[string]string{"redisHost": {"redisHost": " , "}},
		Set: func(t *testing.T, key, value, version string) {
			if err := s.Set(key, value+"||"+version); err != nil {
				t.Fatal(err)
			}
			s.Publish("__keyspace@0__:"+key, "set")
		},
		Delete: func(_ *testing.T, key string) {
			s.Del(key)
			s.Publish("__keyspace@0__:"+key, "del")
		},
		Break: func(t *testing.T, meanwhile func()) {
			s.Close()
			meanwhile()
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestItemOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]configuration.Item{
		"":             {},
		"plain":        {Value: "plain"},
		"value||2":     {Value: "value", Version: "2"},
		"||2":          {Version: "2"},
		"value||":      {Value: "value"},
		"value||2||no": {Value: "value", Version: "2"},
		"a|b||1.0":     {Value: "a|b", Version: "1.0"},
	} {
		if diff := cmp.Diff(want, itemOf(text)); diff != "" {
			t.Errorf("%q (-want +got)\n%s", text, diff)
		}
	}
}
