package house

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/runtime"
)

// suites are the conformance suites of the kinds of components.
var suites = map[string]string{"bindings": "Binding", "pubsub": "PubSub", "secrets": "Secrets", "state": "State", "crypto": "Crypto", "lock": "Lock", "configuration": "Configuration", "middleware": "Middleware"}

// resolvers is where those that find other apps are. They have no suite: what one
// of them may promise differs from the next.
const resolvers = "invoke/names/"

// components lists the folders that export components, each once for each.
func components(t *testing.T) []string {
	t.Helper()
	var folders []string
	for _, f := range tree(t) {
		top, _, below := strings.Cut(f.folder, "/")
		if (below && suites[top] != "" || strings.HasPrefix(f.folder, resolvers)) && !f.test {
			for range exportedComponents(f.ast) {
				folders = append(folders, f.folder)
			}
		}
	}
	if len(folders) < 5 {
		t.Fatalf("only %d components found", len(folders))
	}
	return folders
}

// exportedComponents counts the definitions of a file: Component, or several that
// begin so, as Component3 and Component5.
func exportedComponents(f *ast.File) (n int) {
	for _, d := range f.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, s := range gen.Specs {
			for _, name := range s.(*ast.ValueSpec).Names {
				if strings.HasPrefix(name.Name, "Component") {
					n++
				}
			}
		}
	}
	return n
}

func TestNoComponentIsForgotten(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, f := range tree(t) {
		if f.folder == "all" && !f.test {
			for _, imp := range f.imports() {
				listed[imp] = true
			}
		}
	}
	folders := components(t)
	for _, folder := range folders {
		if !listed[folder] {
			t.Errorf("%s is not in the build; add to all/all.go the import %q and the line\n\t\t%s.Component,", folder, module+"/"+folder, path.Base(folder))
		}
	}
	if n := len(all.Components()); n != len(folders) {
		t.Errorf("all.Components() has %d components, there are %d folders of components", n, len(folders))
	}
}

func TestComponentNamesAreUnique(t *testing.T) {
	t.Parallel()
	names := all.Components().Names()
	for i := 1; i < len(names); i++ {
		if strings.EqualFold(names[i], names[i-1]) {
			t.Errorf("%s is there twice: give one another name", names[i])
		}
	}
}

// meaningless are the parts of About that say nothing of a kind: a secret store,
// a crypto component, a middleware and name resolution acknowledge nothing and order nothing, and
// state, locks and configuration have no order.
func meaningless(d component.Definition) []string {
	switch kind, _, _ := strings.Cut(d.Type, "."); kind {
	case "secretstores", "crypto", "middleware", "nameresolution":
		return []string{"Ack", "Order"}
	case "state", "lock", "configuration":
		return []string{"Order"}
	}
	return nil
}

func TestComponentsAreDescribed(t *testing.T) {
	t.Parallel()
	for _, d := range all.Components() {
		a := d.About
		for field, text := range map[string]string{"Summary": a.Summary, "Ack": a.Ack, "Order": a.Order, "Limits": a.Limits, "Example": a.Example} {
			if text == "" && !slices.Contains(meaningless(d), field) {
				t.Errorf("%s: About.%s is empty: say it for those who choose a component", d.Type, field)
			}
		}
		if strings.HasSuffix(a.Summary, ".") {
			t.Errorf("%s: About.Summary ends with a full stop, which is added where it is printed", d.Type)
		}
		if output := slices.Contains(a.Capabilities, bindings.OutputCapability); output != (len(a.Operations) > 0) {
			t.Errorf("%s: an output binding, and only that, has About.Operations and the capability %s", d.Type, bindings.OutputCapability)
		}
		for _, o := range d.Options {
			if !strings.HasSuffix(o.Doc, ".") {
				t.Errorf("%s: the doc of option %s does not end with a full stop", d.Type, o.Name)
			}
		}
	}
}

// TestExamplesAreRight holds the example of each component to what `penstock
// check` says. A secret store that it takes for granted is added.
func TestExamplesAreRight(t *testing.T) {
	t.Parallel()
	list := all.Components()
	for _, d := range list {
		t.Run(d.Type, func(t *testing.T) {
			t.Parallel()
			set, problems := example(t, d)
			if !slices.ContainsFunc(set.Components, func(c config.Component) bool { return c.Type == d.Type }) && "nameresolution."+set.Configuration.Names.Component != d.Type {
				t.Errorf("the example has no component of type %s", d.Type)
			}
			set.Components = append(set.Components, stores(set.Components)...)
			problems = append(problems, runtime.Check(list, set)...)
			if len(problems) > 0 {
				t.Errorf("the example is wrong:\n%v", problems)
			}
			if text := component.Describe(d); !strings.Contains(text, "Example") {
				t.Errorf("the example is not shown:\n%s", text)
			}
		})
	}
}

// example reads the example of a component, that of name resolution as the
// configuration file that it is.
func example(t *testing.T, d component.Definition) (*config.Set, config.Problems) {
	t.Helper()
	if !strings.HasPrefix(d.Type, "nameresolution.") {
		return config.Parse("example.yaml", []byte(d.About.Example), config.Options{AppID: "app"})
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(d.About.Example), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(config.Options{AppID: "app", Configs: []string{file}})
}

func stores(list []config.Component) (missing []config.Component) {
	for _, c := range list {
		named := func(o config.Component) bool { return o.Name == c.SecretStore }
		if c.SecretStore != "" && !slices.ContainsFunc(list, named) {
			missing = append(missing, config.Component{Name: c.SecretStore, Type: "secretstores.local.env"})
		}
	}
	return missing
}

func TestComponentsRunTheirSuite(t *testing.T) {
	t.Parallel()
	calls := map[string]bool{} // folder and suite
	for _, f := range tree(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && strings.HasPrefix(callee(call), "conform.") && strings.HasSuffix(f.path, "_test.go") {
				calls[f.folder+" "+strings.TrimPrefix(callee(call), "conform.")] = true
			}
			return true
		})
	}
	for _, folder := range components(t) {
		top, _, _ := strings.Cut(folder, "/")
		if !strings.HasPrefix(folder, resolvers) && !calls[folder+" "+suites[top]] {
			t.Errorf("%s has no test that calls conform.%s: what the contract promises must hold for it", folder, suites[top])
		}
	}
}
