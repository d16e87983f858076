package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// This file is the only one that knows the YAML library: it turns a text into
// nodes. The library's parser takes quadratic time for some texts and recurses
// as deep as the text does, so tokens and depth are counted before it runs.

// Bounds of one YAML document, aliases of anchors taken in.
const (
	maxDepth    = 64      // collections inside each other
	maxSigns    = 100_000 // signs, those in texts and comments too
	maxTokens   = 50_000  // words and signs
	maxExpanded = 10_000  // values that stand there through aliases
)

// parseYAML returns the roots of the documents in a text; those that are empty
// are left out. Places count from the line given. The text has no carriage
// returns.
func (r *reader) parseYAML(text string, line int) []*node {
	c := &converter{r: r, line: line}
	if at := tooManySigns(text); at > 0 {
		r.hard(r.place(line+at-1, 0), "split it into several files", "the document is too big: more than %d signs such as brackets, colons and quotes", maxSigns)
		return nil
	}
	tokens := lexer.Tokenize(text)
	if c.excessive(tokens) {
		return nil
	}
	file, err := parseTokens(tokens)
	if err != nil {
		c.syntax(err)
		return nil
	}
	var roots []*node
	for _, doc := range file.Docs {
		c.anchors, c.open = map[string]ast.Node{}, map[string]bool{}
		c.expanded, c.broken = 0, false
		if _, directive := doc.Body.(*ast.DirectiveNode); doc.Body == nil || directive {
			continue
		}
		if n := c.node(doc.Body, 0); !c.broken && (n.kind != scalarNode || n.scalar().kind != nullScalar) {
			roots = append(roots, n)
		}
	}
	return roots
}

// tooManySigns returns the line, counted from 1, on which a text has more signs
// than maxSigns, zero when it has not. Whatever is a token to YAML begins or ends
// with one, and the library makes hundreds of bytes of each before it can be asked
// how many there are.
func tooManySigns(text string) (line int) {
	line = 1
	signs := 0
	for _, c := range []byte(text) {
		switch c {
		case '\n':
			line++
		case '[', ']', '{', '}', ',', ':', '-', '?', '&', '*', '!', '"', '\'', '|', '>', '#', '%', '@':
			if signs++; signs > maxSigns {
				return line
			}
		}
	}
	return 0
}

// parseTokens runs the library's parser, which panics on some wrong texts.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("not readable as YAML")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// converter turns the library's tree of one text into nodes.
type converter struct {
	r        *reader
	line     int // of the first line of the text
	anchors  map[string]ast.Node
	open     map[string]bool // aliases being expanded
	outer    *token.Token    // the first of those
	expanded int
	broken   bool // the document is not to be used
}

// place is where a token stands.
func (c *converter) place(tk *token.Token) Place {
	if tk == nil || tk.Position == nil {
		return c.r.place(c.line, 0)
	}
	return c.r.place(c.line+tk.Position.Line-1, tk.Position.Column)
}

func (c *converter) fail(tk *token.Token, hint, format string, args ...any) *node {
	if !c.broken {
		c.r.hard(c.place(tk), hint, format, args...)
	}
	c.broken = true
	return &node{kind: scalarNode, at: c.place(tk)}
}

// strangeAlias reports an alias without an anchor. One that is like none is most
// likely a text, such as a password, that lacks its quotes, and is not shown.
func (c *converter) strangeAlias(tk *token.Token, name, hint string) *node {
	if hint != "" {
		return c.fail(tk, hint, "alias *%s has no anchor above it", name)
	}
	before := len(c.r.problems)
	n := c.fail(tk, "put a text that begins with * into quotes", "alias has no anchor above it")
	for i := range c.r.problems[before:] {
		at := &c.r.problems[before+i].Place
		at.Text = masked(at.Text)
	}
	return n
}

// syntax reports an error of the parser.
func (c *converter) syntax(err error) {
	type placed interface {
		error
		GetToken() *token.Token
		GetMessage() string
	}
	at, text := c.place(nil), err.Error()
	if p, ok := errors.AsType[placed](err); ok {
		at, text = c.place(p.GetToken()), p.GetMessage()
	}
	words, hint := plainSyntax(text)
	at.Text = masked(at.Text)
	c.r.hard(at, hint, "YAML syntax: %s", words)
}

// plainSyntax says in words for people what the library's message means.
func plainSyntax(text string) (words, hint string) {
	for _, m := range []struct{ has, words, hint string }{
		{`found character '	' that cannot start any token`, "a tab cannot indent", "indent with spaces"},
		{"mapping value is not allowed", "a colon too many after this", `check the indentation, or put text with ": " in it into quotes`},
		{"non-map value is specified", "expected a key and a colon here", "check the indentation"},
		{"value is not allowed in this context", "unexpected value here", "check the indentation"},
		{"could not find end character of double-quoted", "the quoted text has no end", `add the closing "`},
		{"could not find end character of single-quoted", "the quoted text has no end", "add the closing '"},
		{"sequence end token ']' not found", "the list has no end", "add the closing ]"},
		{"could not find flow mapping end token", "the mapping has no end", "add the closing }"},
		{"',' or ']' must be", "the list is not closed", "add the missing , or ]"},
		{"',' or '}' must be", "the mapping is not closed", "add the missing , or }"},
		{"reserved character", text, "put the text into quotes"},
		{"found an invalid key", "this cannot be a key", "check the indentation"},
	} {
		if strings.Contains(text, m.has) {
			return m.words, m.hint
		}
	}
	return strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "?"), ""
}

// excessive counts tokens and depth before the parser sees them.
func (c *converter) excessive(tokens token.Tokens) bool {
	c.r.tokens += len(tokens)
	if len(tokens) > maxTokens || c.r.tokens > maxFileTokens {
		c.fail(tokens[min(len(tokens)-1, maxTokens)], "split it into several files", "the document is too big: more than %d words and signs", maxTokens)
		return true
	}
	var d depthMeter
	for _, tk := range tokens {
		if d.take(tk) > maxDepth {
			c.fail(tk, "", "nested more than %d levels deep", maxDepth)
			return true
		}
	}
	return false
}

// depthMeter follows how deep collections are nested, token by token.
type depthMeter struct {
	columns []int // of the block collections that are open
	flow    int
	line    int
	prev    *token.Token
}

func (d *depthMeter) take(tk *token.Token) int {
	pos := tk.Position
	if d.flow == 0 && pos.Line != d.line {
		d.line = pos.Line
		d.close(pos.Column)
	}
	switch tk.Type {
	case token.SequenceStartType, token.MappingStartType:
		d.flow++
	case token.SequenceEndType, token.MappingEndType:
		d.flow = max(0, d.flow-1)
	case token.SequenceEntryType, token.MappingKeyType:
		d.enter(pos.Column)
	case token.MappingValueType:
		if d.prev != nil && d.prev.Position.Line == pos.Line {
			d.enter(d.prev.Position.Column)
		}
	}
	d.prev = tk
	return len(d.columns) + d.flow
}

func (d *depthMeter) close(column int) {
	for len(d.columns) > 0 && d.columns[len(d.columns)-1] >= column {
		d.columns = d.columns[:len(d.columns)-1]
	}
}

func (d *depthMeter) enter(column int) {
	if d.flow == 0 && (len(d.columns) == 0 || column > d.columns[len(d.columns)-1]) {
		d.columns = append(d.columns, column)
	}
}

// node converts one node of the library.
func (c *converter) node(from ast.Node, depth int) *node {
	if c.broken || from == nil {
		return &node{kind: scalarNode, at: c.place(nil)}
	}
	tk := from.GetToken()
	if depth > maxDepth {
		return c.fail(tk, "", "nested more than %d levels deep", maxDepth)
	}
	if len(c.open) > 0 {
		if c.expanded++; c.expanded > maxExpanded {
			return c.fail(c.outer, "write the values out", "aliases stand for more than %d values", maxExpanded)
		}
	}
	switch from := from.(type) {
	case *ast.MappingNode:
		return c.mapping(from.Values, tk, depth)
	case *ast.MappingValueNode:
		return c.mapping([]*ast.MappingValueNode{from}, tk, depth)
	case *ast.SequenceNode:
		n := &node{kind: listNode, at: c.place(tk)}
		for _, v := range from.Values {
			n.list = append(n.list, c.node(v, depth+1))
		}
		return n
	case *ast.AnchorNode:
		c.anchors[from.Name.GetToken().Value] = from.Value
		return c.node(from.Value, depth)
	case *ast.AliasNode:
		return c.alias(from, depth)
	case *ast.TagNode:
		return c.tagged(from, depth)
	case *ast.LiteralNode:
		return &node{kind: scalarNode, quoted: true, text: from.Value.Value, at: c.place(tk)}
	}
	quoted := tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType
	return &node{kind: scalarNode, quoted: quoted, text: tk.Value, at: c.place(tk)}
}

func (c *converter) mapping(pairs []*ast.MappingValueNode, tk *token.Token, depth int) *node {
	n := &node{kind: tableNode, at: c.place(tk)}
	var merged []*node
	for i, p := range pairs {
		key := p.Key.GetToken()
		if i == 0 && tk.Type != token.MappingStartType {
			n.at = c.place(key)
		}
		if p.Key.IsMergeKey() {
			merged = append(merged, c.node(p.Value, depth+1))
			continue
		}
		if _, scalar := p.Key.(ast.ScalarNode); !scalar {
			return c.fail(key, "", "a key must be a text")
		}
		if first := n.pair(key.Value); first != nil {
			c.r.hard(c.place(key), fmt.Sprintf("the first is on line %d; keep one of them", first.at.Line), "key %q is given twice", key.Value)
			continue
		}
		n.pairs = append(n.pairs, pair{key.Value, c.place(key), c.node(p.Value, depth+1)})
	}
	for _, m := range merged {
		c.merge(n, m)
	}
	return n
}

// merge adds what a "<<" key brings and the mapping does not have itself.
func (c *converter) merge(into, from *node) {
	switch from.kind {
	case tableNode:
		for _, p := range from.pairs {
			if into.pair(p.key) == nil {
				into.pairs = append(into.pairs, p)
			}
		}
	case listNode:
		for _, one := range from.list {
			if one.kind != tableNode {
				c.r.hard(one.at, "", `"<<" takes a mapping or a list of mappings, not %s`, one.what())
				continue
			}
			c.merge(into, one)
		}
	default:
		if !c.broken {
			c.r.hard(from.at, "", `"<<" takes a mapping or a list of mappings, not %s`, from.what())
		}
	}
}

func (c *converter) alias(from *ast.AliasNode, depth int) *node {
	name := from.Value.GetToken().Value
	target, ok := c.anchors[name]
	switch {
	case !ok:
		known := make([]string, 0, len(c.anchors))
		for k := range c.anchors {
			known = append(known, k)
		}
		return c.strangeAlias(from.Start, name, DidYouMean(name, sorted(known)))
	case c.open[name]:
		return c.fail(from.Start, "", "alias *%s stands inside its own anchor", name)
	}
	if len(c.open) == 0 {
		c.outer = from.Start
	}
	c.open[name] = true
	defer delete(c.open, name)
	return c.node(target, depth)
}

func (c *converter) tagged(from *ast.TagNode, depth int) *node {
	n := c.node(from.Value, depth)
	tag := from.Start.Value
	if n.kind != scalarNode && (tag == "!!map" || tag == "!!seq") {
		return n
	}
	if from.Value == nil {
		n.at = c.place(from.Start)
	}
	if n.kind == scalarNode && n.tag(tag) {
		return n
	}
	return c.fail(from.Start, "remove it", "tag %s is not known or does not fit", tag)
}
