package config

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each list of spec.api, and the block about logging, wins over earlier files
// as a whole; what a later file does not have stays.
func TestAPIRules(t *testing.T) {
	t.Parallel()
	head := "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
	folder := write(t, map[string]string{
		"a.yaml": head + "  api:\n    allowed: [{name: publish, version: v1.0, protocol: HTTP}, {name: publish/bulk, version: v1.0-alpha1, protocol: http}]\n" +
			"    denied: [{name: secrets, version: v1.0, protocol: http}]\n  logging: {apiLogging: {enabled: true, obfuscateURLs: true}}\n",
		"b.yaml": head + "  api: {denied: [{name: shutdown, version: v1, protocol: grpc}]}\n",
		"c.yaml": head + "  api: {allowed: []}\n  logging: {apiLogging: {omitHealthChecks: true}}\n",
	})
	load := func(files ...string) Configuration {
		var o Options
		for _, f := range files {
			o.Configs = append(o.Configs, filepath.Join(folder, f))
		}
		set, problems := Load(o)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return set.Configuration
	}
	want := Configuration{
		API: APIs{
			Allowed: []APIRule{{"publish", "v1.0", "http"}, {"publish/bulk", "v1.0-alpha1", "http"}},
			Denied:  []APIRule{{"shutdown", "v1", "grpc"}},
		},
		APILog: APILog{Enabled: true, ObfuscateURLs: true},
	}
	if diff := cmp.Diff(want, load("a.yaml", "b.yaml"), anywhere); diff != "" {
		t.Error(diff)
	}
	want.API.Allowed, want.APILog = nil, APILog{OmitHealthChecks: true}
	if diff := cmp.Diff(want, load("a.yaml", "b.yaml", "c.yaml"), anywhere); diff != "" {
		t.Error(diff)
	}
}
