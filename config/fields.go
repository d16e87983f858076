package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fields reads the fields of one mapping by name, remembers which names there
// are, and reports the others at the end. A nil *node reads as an empty mapping.
type fields struct {
	r      *reader
	n      *node
	path   string // "spec", for messages; empty at the top
	at     Place  // where to say that something is missing
	strict bool   // our own kind: exact names, unknown ones are errors

	known []string
	read  map[string]bool // keys as written
	lacks []string        // required fields to report, unless one is only misspelt
	vital []string        // fields whose misspelling is an error, though their absence is none; done takes those out
	ended bool            // done was called
}

// table begins reading a mapping; parent places what is missing in an absent one.
func (r *reader) table(n *node, path string, parent Place, strict bool) *fields {
	f := &fields{r: r, n: n, path: path, at: parent, strict: strict, read: map[string]bool{}}
	if n == nil {
		return f
	}
	f.at = n.at
	if n.kind != tableNode {
		r.hard(n.at, "", "%s is %s, want a mapping", f.here(), n.what())
		f.n, f.read = nil, nil
	}
	return f
}

func (f *fields) here() string {
	if f.path == "" {
		return "the document"
	}
	return f.path
}

func (f *fields) name(field string) string {
	if f.path == "" {
		return field
	}
	return f.path + "." + field
}

// get returns the value of a field, or nil when it is absent or empty. Dapr's
// reader does not look at the case of names; ours does in our own kinds.
func (f *fields) get(name string) *node {
	if !slices.Contains(f.known, name) {
		f.known = append(f.known, name)
	}
	if f.n == nil {
		return nil
	}
	var found *pair
	for i := range f.n.pairs {
		p := &f.n.pairs[i]
		if p.key == name {
			found = p
			break
		}
		if !f.strict && found == nil && strings.EqualFold(p.key, name) {
			found = p
		}
	}
	if found == nil {
		return nil
	}
	f.read[found.key] = true
	if found.value.kind == scalarNode && found.value.scalar().kind == nullScalar {
		return nil
	}
	return found.value
}

// has tells whether the key is written, be its value empty or not.
func (f *fields) has(name string) bool {
	f.get(name)
	for key := range f.read {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

// skip makes names known whose values nobody needs, and returns those present.
func (f *fields) skip(names ...string) (present []string) {
	for _, name := range names {
		if f.get(name) != nil {
			present = append(present, name)
		}
	}
	return present
}

// done reports the fields that nobody asked for. It tells whether the mapping is
// one and has no such field, so that what seems to be missing really is.
func (f *fields) done() (clean bool) {
	f.ended = true
	clean = f.n != nil || f.read != nil
	for _, p := range f.pairs() {
		if f.read[p.key] {
			continue
		}
		clean = false
		if SpeaksOfSecret(p.key) {
			f.r.cover(p.value)
		}
		near := Nearest(p.key, f.known)
		// Without it the document is of no use.
		needed := slices.Contains(f.lacks, near)
		if i := slices.Index(f.vital, near); i >= 0 {
			needed, f.vital = true, slices.Delete(f.vital, i, i+1)
		}
		f.lacks = slices.DeleteFunc(f.lacks, func(field string) bool { return field == near })
		f.r.add(Problem{
			Place: p.at, Lenient: !f.strict && !needed, Hint: DidYouMean(p.key, f.known),
			Text: fmt.Sprintf("%s has no field %q", f.here(), cut(p.key, 80)),
		})
	}
	for _, field := range f.lacks {
		f.missing(field)
	}
	return clean
}

func (f *fields) pairs() []pair {
	if f.n == nil {
		return nil
	}
	return f.n.pairs
}

func (f *fields) wrong(n *node, field, want string) {
	f.r.hard(n.at, "", "%s is %s, want %s", f.name(field), n.what(), want)
}

// missing reports that a required field is absent or empty.
func (f *fields) missing(field string) {
	if f.n == nil && f.read == nil {
		return // the mapping itself is wrong, which is reported
	}
	if !f.ended {
		f.lacks = append(f.lacks, field)
		return
	}
	f.r.hard(f.at, "", "%s is missing", f.name(field))
}

// text reads a text. Numbers and truth values count as texts, as written.
func (f *fields) text(name string) string {
	n := f.get(name)
	if n == nil {
		return ""
	}
	if n.kind != scalarNode {
		f.wrong(n, name, "a text")
		return ""
	}
	return n.text
}

// need is text for a field that must not be empty.
func (f *fields) need(name string) string {
	n := f.get(name)
	s := f.text(name)
	if n == nil || n.kind == scalarNode && s == "" {
		f.missing(name)
	}
	return s
}

// place is where the value of a field stands, or where its mapping does.
func (f *fields) place(name string) Place {
	if n := f.get(name); n != nil {
		return n.at
	}
	return f.at
}

func (f *fields) bool(name string) bool {
	n := f.get(name)
	if n == nil {
		return false
	}
	if n.kind == scalarNode {
		if s := n.scalar(); s.kind == boolScalar {
			return s.text == "true"
		} else if b, err := ParseBool(n.text); err == nil && s.kind == textScalar {
			f.r.lenient(n.at, "remove the quotes", "%s is a text, want true or false", f.name(name))
			return b
		}
	}
	f.wrong(n, name, "true or false")
	return false
}

// int reads a whole number from least to most; absent is def.
func (f *fields) int(name string, def, least, most int) int {
	n := f.get(name)
	if n == nil {
		return def
	}
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	if most == math.MaxInt32 {
		want = fmt.Sprintf("a whole number of at least %d", least)
	}
	if n.kind == scalarNode {
		s := n.scalar()
		if i, err := strconv.Atoi(s.text); err == nil && s.kind == numberScalar && i >= least && i <= most {
			return i
		}
	}
	f.wrong(n, name, want)
	return def
}

// duration reads a duration that is more than zero; absent is def.
func (f *fields) duration(name string, def time.Duration) time.Duration {
	n := f.get(name)
	if n == nil {
		return def
	}
	if n.kind == scalarNode {
		if d, err := ParseDuration(n.text); err == nil && d > 0 {
			return d
		}
	}
	f.wrong(n, name, "a duration above zero, such as 200ms or 5s")
	return def
}

// table reads a field that is a mapping; it is empty when absent.
func (f *fields) table(name string) *fields {
	return f.r.table(f.get(name), f.name(name), f.at, f.strict)
}

// items reads a field that is a list.
func (f *fields) items(name string) []*node {
	n := f.get(name)
	if n == nil {
		return nil
	}
	if n.kind != listNode {
		f.wrong(n, name, "a list")
		return nil
	}
	return n.list
}

// texts reads a field that is a list of texts.
func (f *fields) texts(name string) []string {
	var list []string
	for i, n := range f.items(name) {
		if n.kind != scalarNode || n.text == "" {
			f.r.hard(n.at, "", "%s[%d] is %s, want a text", f.name(name), i, n.what())
			continue
		}
		list = append(list, n.text)
	}
	return list
}

// values reads a field that is a mapping of names to texts, with Dapr's reading
// of scalars, and where each text stands.
func (f *fields) values(name string) (out map[string]string, places map[string]Place) {
	n := f.get(name)
	if n == nil {
		return nil, nil
	}
	if n.kind != tableNode {
		f.wrong(n, name, "a mapping")
		return nil, nil
	}
	out, places = make(map[string]string, len(n.pairs)), make(map[string]Place, len(n.pairs))
	for _, p := range n.pairs {
		if p.value.kind != scalarNode {
			f.r.hard(p.value.at, "", "%s.%s is %s, want a text", f.name(name), p.key, p.value.what())
			continue
		}
		out[p.key] = p.value.value()
		places[p.key] = f.r.span(p.value.at, out[p.key])
	}
	return out, places
}
