package house

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

func TestNoInit(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init(): list the thing where it is used, or make it in New", f.at(fn.Pos()))
			}
		}
	}
}

// TestNoMutablePackageVariables allows what is written once, by its
// declaration: sentinel errors, compiled patterns, definitions, embedded files.
func TestNoMutablePackageVariables(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.ValueSpec)
				if spec.Names[0].Name != "_" && !constant(spec, gen.Doc) {
					t.Errorf("%s: package variable %s can change: make it a constant, a function or a field", f.at(spec.Pos()), spec.Names[0].Name)
				}
			}
		}
	}
}

func constant(spec *ast.ValueSpec, doc *ast.CommentGroup) bool {
	if doc != nil {
		for _, c := range doc.List {
			if strings.HasPrefix(c.Text, "//go:embed ") {
				return true
			}
		}
	}
	for _, v := range spec.Values {
		call, ok := v.(*ast.CallExpr)
		if !ok {
			return false
		}
		switch name := callee(call); {
		case name == "errors.New", name == "regexp.MustCompile", name == "fault.New", name == "netip.MustParsePrefix", name == "netip.MustParseAddr":
		case strings.HasSuffix(name, ".Define"):
		default:
			return false
		}
	}
	return len(spec.Values) > 0
}

func callee(call *ast.CallExpr) string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + sel.Sel.Name
}

func TestContextsAndSleeps(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch name := callee(call); {
			case name == "time.Sleep" && strings.HasSuffix(f.path, "_test.go"):
				t.Errorf("%s: time.Sleep in a test: wait for what happens (channel, synctest, poll against a deadline)", f.at(call.Pos()))
			case (name == "context.Background" || name == "context.TODO") && !f.test && !strings.HasPrefix(f.folder, "cmd/") && !strings.HasPrefix(f.folder, "examples"):
				t.Errorf("%s: %s outside main: take ctx as a parameter, or use context.WithoutCancel with a deadline", f.at(call.Pos()), name)
			}
			return true
		})
	}
}
