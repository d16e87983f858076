package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/component"
)

// origin tells readers of a page where to change it.
const origin = "<!-- Written by `make docs` from the options struct of the component; change it there. -->\n\n"

func page(d component.Definition) string {
	return origin + component.Markdown(d)
}

func index(list component.List) string {
	return origin + "# Components\n\n" +
		"Every component of this build. `penstock describe TYPE` prints the same as its page.\n\n" +
		componentTable(list, "")
}

// componentTable lists components with links to their pages below dir.
func componentTable(list component.List, dir string) string {
	list = slices.SortedFunc(slices.Values(list), func(a, b component.Definition) int {
		return strings.Compare(a.Type, b.Type)
	})
	var b strings.Builder
	b.WriteString("| component | direction | what it does |\n| --- | --- | --- |\n")
	for _, d := range list {
		fmt.Fprintf(&b, "| [%s](%s%s.md) | %s | %s |\n", d.Type, dir, d.Type, direction(d), d.About.Summary)
	}
	return b.String()
}

// direction says what a binding can be used for; other kinds say their own.
func direction(d component.Definition) string {
	in := slices.Contains(d.About.Capabilities, "INPUT_BINDING")
	out := slices.Contains(d.About.Capabilities, "OUTPUT_BINDING")
	switch {
	case in && out:
		return "in and out"
	case in:
		return "in"
	case out:
		return "out"
	case strings.HasPrefix(d.Type, "pubsub."):
		return "topics"
	case strings.HasPrefix(d.Type, "secretstores."):
		return "secrets"
	case strings.HasPrefix(d.Type, "state."):
		return "state"
	case strings.HasPrefix(d.Type, "crypto."):
		return "keys"
	case strings.HasPrefix(d.Type, "lock."):
		return "locks"
	case strings.HasPrefix(d.Type, "middleware."):
		return "requests"
	case strings.HasPrefix(d.Type, "configuration."):
		return "configuration"
	case strings.HasPrefix(d.Type, "nameresolution."):
		return "names"
	default:
		return ""
	}
}

// flagTable is the table of flags, read from the tags of the struct in path.
func flagTable(path string) (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	var shown, unused []string
	ast.Inspect(file, func(n ast.Node) bool {
		field, ok := n.(*ast.Field)
		if !ok || field.Tag == nil {
			return true
		}
		raw, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			return true
		}
		tag := reflect.StructTag(raw)
		name := tag.Get("name")
		if _, hidden := tag.Lookup("hidden"); hidden && name != "" {
			unused = append(unused, "`--"+name+"`")
		} else if name != "" {
			shown = append(shown, flagRow(name, tag))
		}
		return true
	})
	if len(shown) == 0 {
		return "", fmt.Errorf("read flags of %s: no field has a name tag", path)
	}
	slices.Sort(unused)
	return "| flag | default | meaning |\n| --- | --- | --- |\n" + strings.Join(shown, "") +
		"\nAccepted because existing tooling gives them, without effect in this version: " + strings.Join(unused, ", ") + ".\n", nil
}

func flagRow(name string, tag reflect.StructTag) string {
	meaning := tag.Get("help")
	if other := tag.Get("aliases"); other != "" {
		meaning += " Also `--" + other + "`."
	}
	if env := tag.Get("env"); env != "" {
		meaning += " Environment: `" + env + "`."
	}
	value := tag.Get("default")
	if value != "" {
		value = "`" + value + "`"
	}
	return fmt.Sprintf("| `--%s` | %s | %s |\n", name, value, strings.ReplaceAll(meaning, "|", "\\|"))
}
