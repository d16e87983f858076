package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/all"
)

const root = "../.."

func TestPagesAreUpToDate(t *testing.T) {
	t.Parallel()
	want, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < len(all.Components())+3 {
		t.Fatalf("only %d pages are generated", len(want))
	}
	for path, text := range want {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Errorf("%s is missing: run make docs and commit it", path)
			continue
		}
		if diff := cmp.Diff(string(got), text); diff != "" {
			t.Errorf("%s is out of date: run make docs and commit it (-committed +generated)\n%s", path, diff)
		}
	}
	left, err := leftOver(root, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		t.Errorf("%s belongs to no component any more: run make docs and commit that it is gone", path)
	}
}

// documents returns every hand-written and generated page by its path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	add := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.ToSlash(rel)] = string(text)
	}
	add(filepath.Join(root, "README.md"))
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			add(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

var (
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	code    = regexp.MustCompile("`([^`\n]+)`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	punct   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	file    = regexp.MustCompile(`^[a-z0-9_.-]+(/[a-z0-9_.-]+)+(\.(go|md|yaml|json)|/)$`)
)

// anchors are the fragments that a page's headings can be linked by.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		found[strings.ReplaceAll(punct.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages, checked := documents(t), 0
	for path, text := range pages {
		plain := code.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(plain, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			checked++
			target, fragment, _ := strings.Cut(m[1], "#")
			to := path
			if target != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(path), target))
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, m[1])
			} else if fragment != "" && !anchors(pages[to])[fragment] {
				t.Errorf("%s links to %s, but %s has no such heading", path, m[1], to)
			}
		}
	}
	if checked < 20 {
		t.Fatalf("only %d links found", checked)
	}
}

// TestNamedFilesExist keeps the file maps true: every `folder/file.go` and
// `folder/` in a page is there.
func TestNamedFilesExist(t *testing.T) {
	t.Parallel()
	checked := 0
	for path, text := range documents(t) {
		if strings.HasPrefix(path, folder) {
			continue // options name files of the reader
		}
		for _, m := range code.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if !file.MatchString(m[1]) || strings.HasPrefix(m[1], ".") || strings.Contains(m[1], "/echo") {
				continue // echo is what docs/writing-a-component.md adds
			}
			checked++
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	}
	if checked < 20 {
		t.Fatalf("only %d file names found", checked)
	}
}

// functionNamed finds `Name (path/file.go)` and the like in docs/design.md.
var functionNamed = regexp.MustCompile("`(?:[a-z]+\\.)?(?:\\(?\\*?[A-Za-z]+\\)?\\.)?([A-Za-z]+)` \\(`([a-z/]+\\.go)`\\)")

// TestNamedFunctionsExist keeps the path of an event in docs/design.md true.
func TestNamedFunctionsExist(t *testing.T) {
	t.Parallel()
	found := functionNamed.FindAllStringSubmatch(documents(t)["docs/design.md"], -1)
	if len(found) < 15 {
		t.Fatalf("only %d functions found", len(found))
	}
	for _, m := range found {
		src, err := os.ReadFile(filepath.Join(root, m[2]))
		if err != nil {
			t.Error(err)
			continue
		}
		declared := regexp.MustCompile(`(?m)(^func (\([^)]*\) )?` + m[1] + `\b|^type ` + m[1] + `\b|^\t` + m[1] + `\()`)
		if !declared.Match(src) {
			t.Errorf("docs/design.md names %s in %s, which does not declare it", m[1], m[2])
		}
	}
}
