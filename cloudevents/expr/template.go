package expr

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Template is text with CEL values in it: "{{ event.id }}.json".
type Template struct {
	text     string
	literals []string // one more than values
	values   []*Value
}

// CompileTemplate compiles a template: literal text, and CEL expressions
// between {{ and }}. Braces and quotes inside an expression do not end it; a
// literal {{ is written {{ "{{" }}. Its error is an [*Error] with the place
// inside the whole template.
func (c *Compiler) CompileTemplate(text string) (*Template, error) {
	t := &Template{text: text}
	if len(text) > MaxText {
		return nil, problem("the template has %d bytes, the limit is %d", len(text), MaxText)
	}
	rest := 0
	for {
		open := strings.Index(text[rest:], "{{")
		if open < 0 {
			t.literals = append(t.literals, text[rest:])
			return t, nil
		}
		open += rest
		end := expressionEnd(text, open+2)
		if end < 0 {
			return nil, problemAt(text, open, `"{{" without "}}"`)
		}
		value, err := c.CompileValue(text[open+2 : end])
		if err != nil {
			return nil, shift(err, text, open+2)
		}
		t.literals = append(t.literals, text[rest:open])
		t.values = append(t.values, value)
		rest = end + 2
	}
}

// shift moves the place of an error inside an expression to the template.
func shift(err error, text string, offset int) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	base := problemAt(text, offset, "%s", e.Text)
	if e.Line == 1 {
		base.Column += e.Column - 1
		return base
	}
	base.Line += e.Line - 1
	base.Column = e.Column
	return base
}

// Constant tells whether the template has no expressions.
func (t *Template) Constant() bool { return len(t.values) == 0 }

// String returns the text of the template.
func (t *Template) String() string { return t.text }

// Render returns the template with the values of e filled in. A result longer
// than [MaxResult] is an error.
func (t *Template) Render(e *cloudevents.Event) (string, error) {
	if len(t.values) == 0 {
		return t.text, nil
	}
	var b strings.Builder
	for i, value := range t.values {
		s, err := value.String(e)
		if err != nil {
			return "", err
		}
		b.WriteString(t.literals[i])
		b.WriteString(s)
		if b.Len() > MaxResult {
			return "", fault.New(fault.Invalid, "render %q: the result has more than %d bytes", short(t.text), MaxResult)
		}
	}
	b.WriteString(t.literals[len(t.values)])
	return b.String(), nil
}

// expressionEnd returns where the }} stands that ends the expression which
// begins at from, or -1. It steps over CEL's strings, comments and braces.
func expressionEnd(text string, from int) int {
	depth := 0
	for i := from; i < len(text); {
		switch c := text[i]; {
		case c == '"' || c == '\'':
			i = stringEnd(text, i, isRaw(text, from, i))
			continue
		case c == '/' && strings.HasPrefix(text[i:], "//"):
			if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
				i += n
			}
			// Without a line end, }} still ends the expression.
		case c == '{':
			depth++
		case c == '}' && depth == 0 && strings.HasPrefix(text[i:], "}}"):
			return i
		case c == '}':
			depth--
		}
		i++
	}
	return -1
}

// isRaw tells whether the quote at i opens a raw string: r"..." or br'...'.
func isRaw(text string, from, i int) bool {
	start := i
	for start > from && isWord(text[start-1]) {
		start--
	}
	return strings.ContainsAny(text[start:i], "rR") && i-start <= 2
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// stringEnd returns the offset behind the string that opens at i.
func stringEnd(text string, i int, raw bool) int {
	quote := text[i : i+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(text[i:], triple) {
		quote = triple
	}
	for i += len(quote); i < len(text); i++ {
		if text[i] == '\\' && !raw {
			i++
			continue
		}
		if strings.HasPrefix(text[i:], quote) {
			return i + len(quote)
		}
	}
	return len(text)
}
