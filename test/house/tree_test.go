// Package house holds the project to its own rules: floors, sizes, docs,
// forgotten components, linked modules. Its tests fail with a sentence that
// says what to do.
package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/penstock-io/penstock"

// file is one Go source file of the project.
type file struct {
	path   string // slash-separated, from the root
	folder string
	test   bool
	lines  int
	ast    *ast.File
	fset   *token.FileSet
}

func (f file) at(p token.Pos) string {
	pos := f.fset.Position(p)
	return f.path + ":" + strconv.Itoa(pos.Line)
}

// root returns the project's folder.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree parses every Go file of the project; modules of their own (tests with
// another go.mod) are left out.
func tree(t *testing.T) []file {
	t.Helper()
	base := root(t)
	var files []file
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(base, path, d.Name())
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, file{
			path: rel, folder: filepath.ToSlash(filepath.Dir(rel)),
			test:  strings.HasSuffix(rel, "_test.go") || strings.HasPrefix(rel, "test/"),
			lines: strings.Count(string(src), "\n"), ast: parsed, fset: fset,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d Go files found below %s", len(files), base)
	}
	return files
}

// enter decides whether the walk goes into a folder.
func enter(base, path, name string) error {
	if strings.HasPrefix(name, ".") && path != base || name == "testdata" || name == "node_modules" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != base {
		return fs.SkipDir
	}
	return nil
}

// imports yields the project's own imports of a file, without the module path.
func (f file) imports() []string {
	var own []string
	for _, s := range f.ast.Imports {
		path := strings.Trim(s.Path.Value, `"`)
		if rest, ok := strings.CutPrefix(path, module+"/"); ok {
			own = append(own, rest)
		}
	}
	return own
}
