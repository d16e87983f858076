package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/console"
	"github.com/penstock-io/penstock/pubsub/inmemory"
)

const inUse = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1, metadata: []}
---
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: copy}
spec: {from: {pubsub: bus, topic: a}, to: [{pubsub: {name: bus, topic: b}}]}
---
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: broken}
spec: {from: {pubsub: nowhere, topic: a}, to: [{pubsub: {name: bus, topic: b}}]}
`

// TestDraft checks texts beside files in use, one of which is wrong already.
func TestDraft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(inUse), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) (string, bool) {
		if name == "DAPR_ENV_KEYS" {
			return "SECRET", true
		}
		return "the-canary", true
	}
	r := &Runtime{o: Options{AppID: "shop", Resources: []string{dir}, Components: component.List{inmemory.Component}, Env: env}}
	for name, tt := range map[string]struct {
		text    string
		problem string // part of the only one; empty: none
		changes []console.Change
	}{
		"nothing": {text: "", changes: []console.Change{}},
		"the same": {
			text:    strings.Split(inUse, "---")[0],
			changes: []console.Change{},
		},
		"a new pipeline on what is there": {
			text:    "apiVersion: penstock.dev/v1\nkind: Pipeline\nmetadata: {name: more}\nspec: {from: {pubsub: bus, topic: a}, to: [{pubsub: {name: bus, topic: c}}]}\n",
			changes: []console.Change{{Kind: "Pipeline", Name: "more", Change: "added"}},
		},
		"another pipeline in the place of one": {
			text:    "apiVersion: penstock.dev/v1\nkind: Pipeline\nmetadata: {name: copy}\nspec: {from: {pubsub: bus, topic: x}, to: [{pubsub: {name: bus, topic: c}}]}\n",
			changes: []console.Change{{Kind: "Pipeline", Name: "copy", Change: "changed"}},
		},
		"what is not there": {
			text:    "apiVersion: penstock.dev/v1\nkind: Pipeline\nmetadata: {name: more}\nspec: {from: {pubsub: bux, topic: a}, to: [{pubsub: {name: bus, topic: c}}]}\n",
			problem: `"bux"`, changes: []console.Change{{Kind: "Pipeline", Name: "more", Change: "added"}},
		},
		"no YAML": {text: "a: [", problem: "YAML syntax", changes: []console.Change{}},
		"a variable": {
			text:    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: two}\nspec: {type: pubsub.in-memory, version: v1, metadata: [{name: nope, envRef: SECRET}]}\n",
			problem: "nope", changes: []console.Change{{Kind: "Component", Name: "two", Change: "added"}},
		},
	} {
		got := r.draft([]byte(tt.text))
		var all strings.Builder
		for _, p := range got.Problems {
			all.WriteString(p.Text + p.Hint)
		}
		switch {
		case tt.problem == "" && len(got.Problems) > 0, tt.problem != "" && (len(got.Problems) != 1 || !strings.Contains(all.String(), tt.problem)):
			t.Errorf("%s: problems %+v", name, got.Problems)
		case strings.Contains(all.String(), "canary"):
			t.Errorf("%s: shows the environment: %s", name, all.String())
		}
		if d := cmp.Diff(tt.changes, got.Changes); d != "" {
			t.Errorf("%s: changes (-want +got):\n%s", name, d)
		}
	}
}
