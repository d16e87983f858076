package config

import (
	"errors"
	"fmt"
	"strings"
)

// ReadTexts reads a mapping of names to texts in YAML or JSON, such as stands in
// the value of an option, with the bounds of a file. An empty text is an empty
// mapping. The error says in which line of the text something is wrong.
func ReadTexts(text string) (map[string]string, error) {
	r := &reader{}
	plain, ok := r.plain([]byte(text))
	if ok {
		r.lines = strings.Split(plain, "\n")
		roots := r.parseYAML(plain+"\n", 1)
		out := map[string]string{}
		switch {
		case len(r.problems) > 0:
		case len(roots) == 0:
			return out, nil
		case len(roots) > 1:
			return nil, errors.New("want one mapping, not several documents")
		case roots[0].kind != tableNode:
			return nil, fmt.Errorf("want a mapping of names to texts, not %s", roots[0].what())
		default:
			return out, r.texts(roots[0], out)
		}
	}
	p := r.problems[0]
	if p.Place.Line == 0 {
		return nil, errors.New(p.Text)
	}
	return nil, fmt.Errorf("line %d: %s", p.Place.Line, p.Text)
}

func (r *reader) texts(n *node, out map[string]string) error {
	for _, p := range n.pairs {
		if p.value.kind != scalarNode {
			return fmt.Errorf("line %d: %q is %s, want a text", p.at.Line, cut(p.key, 80), p.value.what())
		}
		if _, twice := out[p.key]; twice {
			return fmt.Errorf("line %d: %q is given twice", p.at.Line, cut(p.key, 80))
		}
		out[p.key] = p.value.value()
	}
	return nil
}
