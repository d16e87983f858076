package house

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

func TestPackagesAreExplained(t *testing.T) {
	t.Parallel()
	docs, paragraphs := map[string]bool{}, map[string]int{}
	for _, f := range tree(t) {
		if strings.HasSuffix(f.path, "_test.go") && !strings.HasPrefix(f.path, "test/") {
			continue
		}
		if _, seen := docs[f.folder]; !seen {
			docs[f.folder] = false
		}
		if f.ast.Doc != nil {
			docs[f.folder] = true
			paragraphs[f.folder] = strings.Count(f.ast.Doc.Text(), "\n\n") + 1
		}
	}
	for folder, ok := range docs {
		if !ok {
			t.Errorf("%s has no package comment: say what it is, what a caller does with it, what it promises", folder)
		}
		if ok && paragraphs[folder] < 3 && !strings.HasPrefix(folder, "test") && !strings.HasPrefix(folder, "examples") {
			t.Errorf("%s: the package comment has %d paragraphs; it wants three: what it is, what a caller does with it, what it promises", folder, paragraphs[folder])
		}
	}
}

func TestExportedNamesAreExplained(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil {
					t.Errorf("%s: %s has no comment: say the surprising thing first", f.at(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				undocumented(t, f, d)
			}
		}
	}
}

func undocumented(t *testing.T, f file, d *ast.GenDecl) {
	t.Helper()
	if d.Tok == token.IMPORT {
		return
	}
	for _, s := range d.Specs {
		var name *ast.Ident
		var doc *ast.CommentGroup
		switch s := s.(type) {
		case *ast.TypeSpec:
			name, doc = s.Name, s.Doc
		case *ast.ValueSpec:
			name, doc = s.Names[0], s.Doc
			if doc == nil {
				doc = s.Comment
			}
		}
		if name.IsExported() && doc == nil && d.Doc == nil {
			t.Errorf("%s: %s has no comment: say the surprising thing first", f.at(s.Pos()), name.Name)
		}
	}
}

// exportedReceiver tells whether a method can be seen from outside at all.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if ix, ok := typ.(*ast.IndexExpr); ok {
		typ = ix.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}
