package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/runtime"
)

// yamlShown finds YAML in fences of its own and in the shell commands that
// write files.
var yamlShown = regexp.MustCompile("(?ms)(?:^```yaml|<<'YAML')\n(.*?)^(?:```|YAML)$")

// TestShownYAMLIsRight reads every document that a page shows. A page may leave
// out the components that its documents name.
func TestShownYAMLIsRight(t *testing.T) {
	t.Parallel()
	checked := 0
	for path, text := range documents(t) {
		for _, m := range yamlShown.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "bindings.echo") || !strings.Contains(m[1], "apiVersion:") {
				continue // the walk-through has a test of its own
			}
			checked++
			set, problems := config.Parse(path, []byte(m[1]), config.Options{AppID: "shop", Env: os.LookupEnv})
			for _, p := range append(problems, runtime.Check(all.Components(), set)...) {
				if !unnamed.MatchString(p.Text) {
					t.Errorf("%s shows a document that is wrong: %s", path, p)
				}
			}
		}
	}
	if checked < 15 {
		t.Fatalf("only %d documents found", checked)
	}
}

// unnamed are the problems of a document without those around it, or without the
// program of the pluggable sample.
var unnamed = regexp.MustCompile(`^no .* is called "|is not configured$|unknown component type "(?:pubsub|bindings)\.sample"|^environment variable \S+ is not set$`)
