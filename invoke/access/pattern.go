package access

import (
	"cmp"
	"slices"
	"strings"
)

// many is a step that stands for any number of steps, none among them; any for one
// step, which may be missing at the end.
const (
	many = "**"
	any1 = "*"
)

// pattern is the path of an operation, step by step. In a step, * stands for any
// number of characters.
type pattern []string

func newPattern(path string) pattern { return steps(path) }

// steps splits a plain path. One slash at the end does not count.
func steps(path string) []string {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// bareSteps returns the steps without their parameters, which some servers take
// off before they look for a handler: a;b=c is a.
func bareSteps(exact []string) []string {
	if !slices.ContainsFunc(exact, func(s string) bool { return strings.Contains(s, ";") }) {
		return exact
	}
	bare := make([]string, len(exact))
	for i, s := range exact {
		bare[i], _, _ = strings.Cut(s, ";")
	}
	return bare
}

// below returns the pattern of what stands below a path; false when the pattern
// says itself how far down it goes.
func (p pattern) below() (pattern, bool) {
	if len(p) == 0 || p[len(p)-1] == many || p[len(p)-1] == any1 {
		return nil, false
	}
	return append(slices.Clone(p), many), true
}

// match tells whether the pattern stands for a path.
func (p pattern) match(path []string) bool {
	if n := len(p) - 1; n >= 0 && p[n] == any1 && p[:n].matchAll(path) {
		return true
	}
	return p.matchAll(path)
}

// matchAll is match without the rule about the last step. It looks at each pair of
// steps once at most: after a many, the first fit is as good as any.
func (p pattern) matchAll(path []string) bool {
	i, j, back, from := 0, 0, -1, 0
	for j < len(path) {
		switch {
		case i < len(p) && p[i] == many:
			back, from = i, j
			i++
		case i < len(p) && glob(p[i], path[j]):
			i, j = i+1, j+1
		case back >= 0:
			from++
			i, j = back+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == many {
		i++
	}
	return i == len(p)
}

// glob is matchAll for the characters of a step.
func glob(p, s string) bool {
	i, j, back, from := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			back, from = i, j
			i++
		case i < len(p) && p[i] == s[j]:
			i, j = i+1, j+1
		case back >= 0:
			from++
			i, j = back+1, from
		default:
			return false
		}
	}
	return strings.Trim(p[i:], "*") == ""
}

// compare sorts the narrower of two patterns in front, step by step from the left:
// a text before one with wildcards, the longer of those before the shorter, the
// end of the path before *, and ** last.
func (p pattern) compare(other pattern) int {
	for i := range max(len(p), len(other)) {
		if n := cmp.Compare(other.weight(i), p.weight(i)); n != 0 {
			return n
		}
	}
	return 0
}

// weight is how narrow step i is.
func (p pattern) weight(i int) int {
	const end, text = 2, 1 << 30
	switch {
	case i >= len(p):
		return end
	case p[i] == many:
		return 0
	case p[i] == any1:
		return 1
	case strings.Contains(p[i], "*"):
		return end + len(strings.ReplaceAll(p[i], "*", ""))
	}
	return text
}
