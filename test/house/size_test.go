package house

import (
	"go/ast"
	"strings"
	"testing"
)

const (
	maxFile       = 600 // lines
	maxFunc       = 60  // lines
	wantFunc      = 40  // lines
	overWantShare = 2   // per cent of functions that may be longer than wantFunc
	maxParams     = 5
	maxMethods    = 4 // of an interface
)

func TestFilesAreSmall(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		if f.lines > maxFile {
			t.Errorf("%s has %d lines, the limit is %d: split it by what it is about", f.path, f.lines, maxFile)
		}
	}
}

func TestFunctionsAreSmall(t *testing.T) {
	t.Parallel()
	total, long := 0, []string{}
	for _, f := range tree(t) {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
			total++
			if n > maxFunc {
				t.Errorf("%s: %s has %d lines, the limit is %d: two things happen in it, make two functions", f.at(fn.Pos()), fn.Name.Name, n, maxFunc)
			}
			if n > wantFunc && !f.test {
				long = append(long, f.at(fn.Pos())+" "+fn.Name.Name)
			}
			if p := params(fn.Type); p > maxParams && !f.test {
				t.Errorf("%s: %s has %d parameters, the limit is %d: make a struct", f.at(fn.Pos()), fn.Name.Name, p, maxParams)
			}
		}
	}
	if len(long)*100 > total*overWantShare {
		t.Errorf("%d of %d functions are longer than %d lines, more than %d %%:\n%s", len(long), total, wantFunc, overWantShare, strings.Join(long, "\n"))
	}
}

func params(ft *ast.FuncType) int {
	n := 0
	for _, p := range ft.Params.List {
		n += max(1, len(p.Names))
	}
	return n
}

func TestInterfacesAreSmall(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if it, ok := spec.Type.(*ast.InterfaceType); ok && it.Methods.NumFields() > maxMethods {
				t.Errorf("%s: interface %s has %d methods, the limit is %d: split it where it is used", f.at(spec.Pos()), spec.Name.Name, it.Methods.NumFields(), maxMethods)
			}
			return true
		})
	}
}
