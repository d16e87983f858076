package config

import "strings"

// ParseLists reads a YAML or JSON text that is one mapping of names to a text or
// a list of texts; file is its name for messages. An empty text is an empty
// mapping.
func ParseLists(file string, data []byte) (map[string][]string, Problems) {
	r := &reader{set: &Set{}, file: file}
	text, ok := r.plain(data)
	if !ok {
		return nil, r.problems
	}
	r.lines = strings.Split(text, "\n")
	out := map[string][]string{}
	for i, root := range r.parseYAML(text, 1) {
		switch {
		case i > 0:
			r.hard(root.at, "", "there is a second document")
		case root.kind != tableNode:
			r.hard(root.at, "", "the document is %s, want a mapping", root.what())
		}
		for _, p := range root.pairs {
			out[p.key] = r.list(p)
		}
	}
	return out, r.problems
}

// list reads a text, or a list of them.
func (r *reader) list(p pair) []string {
	all := p.value.list
	if p.value.kind == scalarNode {
		all = []*node{p.value}
	}
	var texts []string
	for _, n := range all {
		if n.kind != scalarNode || n.text == "" {
			r.hard(n.at, "", "%s is %s, want a text", p.key, n.what())
			continue
		}
		texts = append(texts, n.text)
	}
	if p.value.kind == tableNode {
		r.hard(p.value.at, "", "%s is a mapping, want a text or a list of texts", p.key)
	}
	return texts
}
