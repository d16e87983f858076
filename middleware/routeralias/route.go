package routeralias

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// route is one line of the table.
type route struct {
	from    string
	pattern *regexp.Regexp // nil: from is the path itself
	names   []string       // of the groups, from the first one on
	literal int            // bytes of from that are no variables
	to      *url.URL
}

func newRoute(from, to string) (r route, err error) {
	switch {
	case !strings.HasPrefix(from, "/"):
		return r, errors.New(`a path begins with "/"`)
	case !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//"):
		return r, errors.New(`the new path does not begin with one "/"`)
	case strings.ContainsAny(to, "?#"):
		return r, errors.New("the new path must have neither query nor fragment")
	}
	r.from = from
	if r.to, err = url.ParseRequestURI(to); err != nil {
		return r, errors.New("the new path is not one of a URL")
	}
	if !strings.ContainsAny(from, "{}") {
		r.literal = len(from)
		return r, nil
	}
	return r, r.compile()
}

// compile makes a regular expression of a path with variables.
func (r *route) compile() error {
	var b strings.Builder
	b.WriteString("^")
	for rest := r.from; rest != ""; {
		text, tail, found := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return errors.New(`a "}" closes nothing`)
		}
		b.WriteString(regexp.QuoteMeta(text))
		r.literal += len(text)
		if !found {
			break
		}
		end := closing(tail)
		if end < 0 {
			return errors.New(`a "{" is not closed`)
		}
		name, expr, _ := strings.Cut(tail[:end], ":")
		if name == "" {
			return errors.New("a variable has no name")
		}
		if expr == "" {
			expr = "[^/]+"
		}
		// Checked alone, so that it cannot close the group it stands in.
		if sub, err := regexp.Compile(expr); err != nil {
			return fmt.Errorf("the expression of %q: %w", name, err)
		} else if sub.NumSubexp() > 0 {
			return fmt.Errorf("the expression of %q has a group; write (?:...)", name)
		}
		r.names = append(r.names, name)
		b.WriteString("(" + expr + ")")
		rest = tail[end+1:]
	}
	b.WriteString("$")
	var err error
	r.pattern, err = regexp.Compile(b.String())
	return err
}

// closing is where the brace closes that was opened before text, or -1.
func closing(text string) int {
	depth := 1
	for i := range len(text) {
		switch text[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// match tells whether a decoded path is one of the route, and the values of its
// variables.
func (r *route) match(path string) (url.Values, bool) {
	if r.pattern == nil {
		return nil, path == r.from
	}
	found := r.pattern.FindStringSubmatch(path)
	if found == nil {
		return nil, false
	}
	values := make(url.Values, len(r.names))
	for i, name := range r.names {
		values.Add(name, found[i+1])
	}
	return values, true
}
