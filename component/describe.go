package component

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
)

// Describe returns what a person at a terminal wants to know of a component.
func Describe(d Definition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  (%s)\n%s.\n", d.Type, strings.Join(d.Versions, ", "), d.About.Summary)
	if facts := d.facts(); len(facts) > 0 {
		b.WriteString("\n")
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, f := range facts {
			fmt.Fprintf(w, "%s:\t%s\n", f.name, f.text)
		}
		_ = w.Flush() // a Builder takes everything
	}
	for _, g := range d.groups() {
		fmt.Fprintf(&b, "\n%s\n", g.title)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, o := range g.options {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", o.shown(), o.Type, o.otherwise(), o.explained())
		}
		_ = w.Flush()
	}
	if d.About.Example != "" {
		fmt.Fprintf(&b, "\nExample\n%s\n", indent(d.About.Example))
	}
	return tidy(b.String())
}

// Markdown returns the reference page of a component.
func Markdown(d Definition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s.\n\nVersions: `%s`.\n", d.Type, d.About.Summary, strings.Join(d.Versions, "`, `"))
	if facts := d.facts(); len(facts) > 0 {
		b.WriteString("\n| | |\n| --- | --- |\n")
		for _, f := range facts {
			fmt.Fprintf(&b, "| **%s** | %s |\n", f.name, cell(f.text))
		}
	}
	for _, g := range d.groups() {
		fmt.Fprintf(&b, "\n## %s\n\n| name | type | default | meaning |\n| --- | --- | --- | --- |\n", g.title)
		for _, o := range g.options {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(o.shown()), o.Type, markdownDefault(o), cell(o.explained()))
		}
	}
	if d.About.Example != "" {
		fmt.Fprintf(&b, "\n## Example\n\n```yaml\n%s\n```\n", strings.TrimSpace(d.About.Example))
	}
	return b.String()
}

type fact struct{ name, text string }

// facts lists what the component promises, without what it says nothing about.
func (d Definition) facts() (list []fact) {
	a := d.About
	for _, f := range []fact{
		{"Acknowledged", a.Ack},
		{"Order", a.Order},
		{"Limits", a.Limits},
		{"Several processes", a.Scale},
		{"Operations", strings.Join(a.Operations, ", ")},
		{"Differs from Dapr", a.Dapr},
	} {
		if f.text != "" {
			list = append(list, f)
		}
	}
	return list
}

// group is a run of options under one title.
type group struct {
	title   string
	options []Option
}

func (d Definition) groups() (list []group) {
	kind, _, _ := strings.Cut(d.Type, ".")
	own, ignored := group{title: "Options"}, group{title: "Accepted and not needed"}
	for _, o := range d.Options {
		if o.Type == "ignored" {
			ignored.options = append(ignored.options, o)
		} else {
			own.options = append(own.options, o)
		}
	}
	for _, g := range []group{own, {"Options of all " + kind, d.Common}, ignored} {
		if len(g.options) > 0 {
			list = append(list, g)
		}
	}
	return list
}

// shown is the name as a person reads it.
func (o Option) shown() string {
	if o.Name == "*" {
		return "(any other)"
	}
	return o.Name
}

// otherwise says what holds when the option is not given.
func (o Option) otherwise() string {
	if o.Required {
		return "required"
	}
	return cmp.Or(o.Default, "-")
}

// explained is the doc with everything else there is to know.
func (o Option) explained() string {
	parts := []string{o.Doc}
	if len(o.Enum) > 0 {
		parts = append(parts, "One of "+strings.Join(o.Enum, ", ")+".")
	}
	if len(o.Aliases) > 0 {
		parts = append(parts, "Also called "+strings.Join(o.Aliases, ", ")+".")
	}
	if o.Example != "" {
		parts = append(parts, "Example: "+o.Example)
	}
	return strings.Join(parts, " ")
}

func markdownDefault(o Option) string {
	if o.Required || o.Default == "" {
		return strings.Trim(o.otherwise(), "-")
	}
	return code(o.Default)
}

// code sets a word in the fixed font of Markdown.
func code(s string) string {
	if strings.HasPrefix(s, "(") {
		return s
	}
	return "`" + strings.ReplaceAll(s, "|", "\\|") + "`"
}

func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}

// tidy removes spaces at the ends of lines.
func tidy(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
