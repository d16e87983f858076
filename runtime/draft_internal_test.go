package runtime

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

// configured are two documents, of which the later one wins.
const configured = `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: first}
spec: {tracing: {samplingRate: "1"}, api: {denied: [{name: state, version: v1.0, protocol: http}]}}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: second}
spec: {components: {deny: [bindings.exec]}}
`

// drafted is a text and what must be said of it.
type drafted struct {
	text    string
	problem string // part of the only one; empty: none
	changes []console.Change
	notes   []string
}

// drafts are texts of resources.
func drafts() map[string]drafted {
	return map[string]drafted{
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
	}
}

// draftedConfigurations are texts of Configurations.
func draftedConfigurations() map[string]drafted {
	return map[string]drafted{
		"a Configuration as it is": {
			text: strings.Split(configured, "---")[0], changes: []console.Change{},
			notes: []string{"Configuration first belongs in a file that --config names; in a resource folder it is not used"},
		},
		"a Configuration that says less than the one of its name": {
			text:    "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: first}\nspec: {tracing: {samplingRate: \"0.5\"}, mtls: {enabled: true}}\n",
			changes: []console.Change{{Kind: "Configuration", Name: "spec.api", Change: "changed"}, {Kind: "Configuration", Name: "spec.mtls", Change: "changed"}, {Kind: "Configuration", Name: "spec.tracing", Change: "changed"}},
			notes: []string{
				"Configuration first belongs in a file that --config names; in a resource folder it is not used",
				"spec.mtls is taken over with the next start, not by a reload",
			},
		},
		"a new Configuration": {
			text:    "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: third}\nspec: {components: {deny: [bindings.http]}}\n",
			changes: []console.Change{{Kind: "Configuration", Name: "spec.components", Change: "changed"}},
			notes:   []string{"Configuration third belongs in a file that --config names; in a resource folder it is not used"},
		},
		"a Configuration that is wrong": {
			text:    "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: first}\nspec: {accessControl: {defaultAction: maybe}}\n",
			problem: "allow or deny", changes: []console.Change{},
		},
	}
}

// TestDraft checks texts beside files in use, one of which is wrong already.
func TestDraft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(inUse), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(settings, []byte(configured), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) (string, bool) {
		if name == "DAPR_ENV_KEYS" {
			return "SECRET", true
		}
		return "the-canary", true
	}
	r := &Runtime{o: Options{AppID: "shop", Resources: []string{dir}, Configs: []string{settings}, Components: component.List{inmemory.Component}, Env: env}}
	rows := drafts()
	maps.Copy(rows, draftedConfigurations())
	for name, tt := range rows {
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
		if d := cmp.Diff(tt.notes, got.Notes, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: notes (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(tt.changes, got.Changes); d != "" {
			t.Errorf("%s: changes (-want +got):\n%s", name, d)
		}
	}
}
