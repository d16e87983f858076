// Command pages writes what the documentation says of components and flags
// from the source of truth: the options structs and the flags struct.
//
// `make docs` runs it in the project's folder. It writes docs/components whole,
// and the parts of other pages that stand between <!-- name --> and
// <!-- /name -->. The tests beside it fail when a committed page is not what it
// would write, and when a link or a named file does not exist.
//
// It changes no other text, and writes nothing when a part is missing.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/all"
)

// folder holds the pages that are written whole.
const folder = "docs/components"

func main() {
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, "pages:", err)
		os.Exit(1)
	}
}

// write brings every page below root up to date and removes component pages
// that nothing stands behind any more.
func write(root string) error {
	want, err := generate(root)
	if err != nil {
		return err
	}
	left, err := leftOver(root, want)
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(filepath.Join(root, path)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
		return err
	}
	for path, text := range want {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the text of every page by its path from root.
func generate(root string) (map[string]string, error) {
	list := all.Components()
	pages := map[string]string{folder + "/README.md": index(list)}
	for _, d := range list {
		pages[folder+"/"+d.Type+".md"] = page(d)
	}
	flags, err := flagTable(filepath.Join(root, "cmd/penstock/flags.go"))
	if err != nil {
		return nil, err
	}
	parts := []struct{ path, name, text string }{
		{"README.md", "components", componentTable(list, folder+"/")},
		{"docs/operations.md", "flags", flags},
	}
	for _, p := range parts {
		old, err := os.ReadFile(filepath.Join(root, p.path))
		if err != nil {
			return nil, err
		}
		if pages[p.path], err = replacePart(string(old), p.name, p.text); err != nil {
			return nil, fmt.Errorf("write %s: %w", p.path, err)
		}
	}
	return pages, nil
}

// replacePart puts text between the marks called name.
func replacePart(page, name, text string) (string, error) {
	open, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, ok := strings.Cut(page, open)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("no part between %q and %q", strings.TrimSpace(open), strings.TrimSpace(end))
	}
	return before + open + text + end + after, nil
}

// leftOver lists the component pages that are not wanted.
func leftOver(root string, want map[string]string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(root, folder, "*"))
	if err != nil {
		return nil, err
	}
	var left []string
	for _, path := range found {
		rel := folder + "/" + filepath.Base(path)
		if _, ok := want[rel]; !ok {
			left = append(left, rel)
		}
	}
	slices.Sort(left)
	return left, nil
}
