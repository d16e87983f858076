package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

const maxDepth = 64

// parse reads a secrets file. Errors begin with "line:column: ".
func parse(data []byte, separator string, multi bool) (map[string]map[string]string, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	p := &parser{data: data, separator: separator, out: map[string]map[string]string{}, multi: multi}
	p.dec = json.NewDecoder(bytes.NewReader(data))
	p.dec.UseNumber()
	tok, err := p.next()
	if err != nil {
		return nil, err
	}
	if tok != json.Delim('{') {
		return nil, p.errorf("the file must hold one JSON object, not %s", describe(tok))
	}
	if err := p.object(spot{depth: 1}); err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, p.errorf("more text after the JSON object")
	}
	return p.out, nil
}

type parser struct {
	dec       *json.Decoder
	data      []byte
	separator string
	multi     bool
	out       map[string]map[string]string
}

// spot is where in the document a value stands.
type spot struct {
	secret string // the multi-valued secret it belongs to
	inside bool   // secret is set
	path   string // name so far, within the secret when inside
	parts  int    // of path
	depth  int    // objects and lists around it
}

func (s spot) child(name, separator string) spot {
	if s.parts > 0 {
		name = s.path + separator + name
	}
	s.path = name
	s.parts++
	return s
}

// object reads up to the closing brace.
func (p *parser) object(at spot) error {
	seen := map[string]bool{}
	for p.dec.More() {
		tok, err := p.next()
		if err != nil {
			return err
		}
		name, ok := tok.(string)
		if !ok {
			return p.errorf("a name must be a string, not %s", describe(tok))
		}
		if seen[name] {
			return p.errorf("the name %q stands twice in one object", name)
		}
		seen[name] = true
		if err := p.value(at.child(name, p.separator)); err != nil {
			return err
		}
	}
	_, err := p.next()
	return err
}

func (p *parser) list(at spot) error {
	for i := 0; p.dec.More(); i++ {
		if err := p.value(at.child(strconv.Itoa(i), p.separator)); err != nil {
			return err
		}
	}
	_, err := p.next()
	return err
}

func (p *parser) value(at spot) error {
	tok, err := p.next()
	if err != nil {
		return err
	}
	delim, nested := tok.(json.Delim)
	if !nested {
		return p.put(at, tok)
	}
	if at.depth == maxDepth {
		return p.errorf("more than %d levels", maxDepth)
	}
	at.depth++
	if p.multi && !at.inside {
		at = spot{secret: at.path, inside: true, depth: at.depth}
		p.out[at.secret] = map[string]string{}
	}
	if delim == '{' {
		return p.object(at)
	}
	return p.list(at)
}

// put notes one value; null is no value.
func (p *parser) put(at spot, tok json.Token) error {
	if tok == nil {
		return nil
	}
	secret := at.path
	if at.inside {
		secret = at.secret
	}
	values := p.out[secret]
	if values == nil {
		values = map[string]string{}
		p.out[secret] = values
	}
	if _, twice := values[at.path]; twice {
		return p.errorf("the name %q stands twice", at.path)
	}
	values[at.path] = fmt.Sprint(tok)
	return nil
}

func (p *parser) next() (json.Token, error) {
	tok, err := p.dec.Token()
	if err == nil {
		return tok, nil
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		// Its own offset counts from the start of the value in some cases.
		rest := p.data[p.dec.InputOffset():]
		spaces := len(rest) - len(bytes.TrimLeft(rest, " \t\r\n"))
		return nil, p.errorAt(p.dec.InputOffset()+int64(spaces)+1, "%w", err)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the file ends too early")
	}
	return nil, p.errorAt(int64(len(p.data)), "%w", err)
}

func (p *parser) errorf(format string, args ...any) error {
	return p.errorAt(p.dec.InputOffset(), format, args...)
}

// errorAt puts line and column of the byte before offset in front.
func (p *parser) errorAt(offset int64, format string, args ...any) error {
	before := p.data[:max(0, min(int(offset), len(p.data))-1)]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return fmt.Errorf("%d:%d: %w", line, column, fmt.Errorf(format, args...))
}

func describe(tok json.Token) string {
	switch tok.(type) {
	case json.Delim:
		return "a list"
	case string:
		return "a string"
	case nil:
		return "null"
	default:
		return "a number or boolean"
	}
}
