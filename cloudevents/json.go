package cloudevents

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// syntaxError is where JSON text goes wrong.
type syntaxError struct {
	at  int
	why string
	// limit: the text is JSON, but more than we take.
	limit bool
}

func (s *syntaxError) Error() string {
	return "byte " + strconv.Itoa(s.at) + ": " + s.why
}

func wrong(at int, why string) error { return &syntaxError{at: at, why: why} }

// cursor walks over the JSON value at pos without building anything. The text
// must be valid UTF-8.
type cursor struct {
	text    []byte
	pos     int
	room    int // how many levels skip may open
	depth   int
	objects uint64 // bit n: the level n above the innermost is an object
}

// checkJSON tells whether data is one JSON value that may stand inside an
// event.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return wrong(badUTF8(data), "not UTF-8")
	}
	c := cursor{text: data, room: MaxDepth - 1}
	if err := c.skip(); err != nil {
		return err
	}
	return c.end()
}

// end tells whether nothing but white space follows.
func (c *cursor) end() error {
	if c.space(); c.pos < len(c.text) {
		return wrong(c.pos, "something follows the end")
	}
	return nil
}

// isLimit tells whether err says that the JSON is more than we take.
func isLimit(err error) bool {
	s, ok := errors.AsType[*syntaxError](err)
	return ok && s.limit
}

// skip moves over one value.
func (c *cursor) skip() error {
	c.depth, c.objects = 0, 0
	for {
		opened, err := c.open()
		if err != nil {
			return err
		}
		if opened {
			continue
		}
		if done, err := c.close(); done || err != nil {
			return err
		}
	}
}

// open moves over a scalar or an empty container, or into a container up to
// its first value; it then reports true.
func (c *cursor) open() (bool, error) {
	ch, err := c.next()
	if err != nil {
		return false, err
	}
	if ch != '{' && ch != '[' {
		return false, c.scalar(ch)
	}
	if c.depth == c.room {
		why := "nested deeper than " + strconv.Itoa(MaxDepth) + " levels"
		return false, &syntaxError{at: c.pos, why: why, limit: true}
	}
	c.pos++
	inner, err := c.next()
	if err != nil {
		return false, err
	}
	if inner == ch+2 { // '}' and ']' stand two after their opening
		c.pos++
		return false, nil
	}
	c.depth++
	c.objects <<= 1
	if ch == '[' {
		return true, nil
	}
	c.objects |= 1
	return true, c.key()
}

// close moves over what follows a value: closing brackets, then a comma and
// the next key. It reports true at the end of the outermost value.
func (c *cursor) close() (bool, error) {
	for c.depth > 0 {
		ch, err := c.next()
		if err != nil {
			return false, err
		}
		object := c.objects&1 == 1
		c.pos++
		switch {
		case ch == ',' && object:
			return false, c.key()
		case ch == ',':
			return false, nil
		case ch == '}' && object, ch == ']' && !object:
			c.depth--
			c.objects >>= 1
		case object:
			return false, wrong(c.pos-1, "expected , or } in an object")
		default:
			return false, wrong(c.pos-1, "expected , or ] in an array")
		}
	}
	return true, nil
}

// key moves over a key and its colon.
func (c *cursor) key() error {
	ch, err := c.next()
	if err != nil {
		return err
	}
	if ch != '"' {
		return wrong(c.pos, "expected a key in quotes")
	}
	if _, err := c.str(); err != nil {
		return err
	}
	return c.colon()
}

func (c *cursor) colon() error {
	ch, err := c.next()
	if err != nil {
		return err
	}
	if ch != ':' {
		return wrong(c.pos, "expected : after a key")
	}
	c.pos++
	return nil
}

// scalar moves over a string, number or literal that starts with ch.
func (c *cursor) scalar(ch byte) error {
	switch {
	case ch == '"':
		_, err := c.str()
		return err
	case ch == '-' || '0' <= ch && ch <= '9':
		_, err := c.number()
		return err
	case ch == 't':
		return c.literal("true")
	case ch == 'f':
		return c.literal("false")
	case ch == 'n':
		return c.literal("null")
	default:
		return wrong(c.pos, "expected a value")
	}
}

func (c *cursor) literal(word string) error {
	end := c.pos + len(word)
	if end > len(c.text) || string(c.text[c.pos:end]) != word {
		return wrong(c.pos, "expected "+word)
	}
	c.pos = end
	return nil
}

// next moves over white space and returns the byte it stands on.
func (c *cursor) next() (byte, error) {
	c.space()
	if c.pos >= len(c.text) {
		return 0, wrong(c.pos, "the text ends too early")
	}
	return c.text[c.pos], nil
}

func (c *cursor) space() {
	for c.pos < len(c.text) {
		switch c.text[c.pos] {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return
		}
	}
}

// str moves over the string that starts here and tells whether it has escapes.
func (c *cursor) str() (escaped bool, err error) {
	start := c.pos
	c.pos++
	for {
		c.pos = plain(c.text, c.pos)
		if c.pos >= len(c.text) {
			return escaped, wrong(start, "the string has no end")
		}
		switch c.text[c.pos] {
		case '"':
			c.pos++
			return escaped, nil
		case '\\':
			escaped = true
			if err := c.escape(); err != nil {
				return escaped, err
			}
		default:
			return escaped, wrong(c.pos, "control character in a string")
		}
	}
}

func (c *cursor) escape() error {
	rest := c.text[c.pos:]
	if len(rest) >= 2 && bytes.IndexByte([]byte(`"\/bfnrt`), rest[1]) >= 0 {
		c.pos += 2
		return nil
	}
	if len(rest) >= 6 && rest[1] == 'u' && hex4(rest[2:]) >= 0 {
		c.pos += 6
		return nil
	}
	return wrong(c.pos, "unknown escape in a string")
}

// plain returns the position of the first byte from pos on that does not stand
// for itself in a JSON string: a quote, a backslash or a control character.
func plain(text []byte, pos int) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for pos+8 <= len(text) {
		w := binary.LittleEndian.Uint64(text[pos:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		// Of the bytes that match, the lowest is always right; those above it
		// may be wrong because of the borrow.
		hit := ((w-ones*0x20)&^w | (quote-ones)&^quote | (slash-ones)&^slash) & high
		if hit != 0 {
			return pos + bits.TrailingZeros64(hit)/8
		}
		pos += 8
	}
	for ; pos < len(text); pos++ {
		if ch := text[pos]; ch < 0x20 || ch == '"' || ch == '\\' {
			break
		}
	}
	return pos
}

// number moves over a number and tells whether it is written as an integer.
func (c *cursor) number() (integer bool, err error) {
	start := c.pos
	if c.text[c.pos] == '-' {
		c.pos++
	}
	first := c.pos
	n := c.digits()
	if n == 0 || n > 1 && c.text[first] == '0' {
		return false, wrong(start, "not a number")
	}
	integer = true
	if c.pos < len(c.text) && c.text[c.pos] == '.' {
		c.pos++
		integer = false
		if c.digits() == 0 {
			return false, wrong(start, "not a number")
		}
	}
	if c.pos < len(c.text) && c.text[c.pos]|0x20 == 'e' {
		c.pos++
		integer = false
		if c.pos < len(c.text) && (c.text[c.pos] == '+' || c.text[c.pos] == '-') {
			c.pos++
		}
		if c.digits() == 0 {
			return false, wrong(start, "not a number")
		}
	}
	if c.pos-start > MaxNumberLen {
		why := "number longer than " + strconv.Itoa(MaxNumberLen) + " bytes"
		return false, &syntaxError{at: start, why: why, limit: true}
	}
	return integer, nil
}

func (c *cursor) digits() int {
	start := c.pos
	for c.pos < len(c.text) && '0' <= c.text[c.pos] && c.text[c.pos] <= '9' {
		c.pos++
	}
	return c.pos - start
}

// wholeNumber returns the text of a 32-bit integer that is written with a
// fraction or an exponent.
func wholeNumber(text string) (string, bool) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return "", false
	}
	return strconv.FormatInt(int64(f), 10), true
}

// unescaped resolves the escapes of what stands between the quotes of a valid
// JSON string. Half a surrogate pair becomes U+FFFD.
func unescaped(in []byte) []byte {
	at := bytes.IndexByte(in, '\\')
	if at < 0 {
		return in
	}
	out := append(make([]byte, 0, len(in)), in[:at]...)
	for at < len(in) {
		r, n := rune(in[at]), 1
		if r == '\\' {
			r, n = unescapeRune(in[at:])
			out = utf8.AppendRune(out, r)
			at += n
			continue
		}
		end := plain(in, at)
		out = append(out, in[at:end]...)
		at = end
	}
	return out
}

// unescapeRune returns the character that the escape at the start of in stands
// for and the escape's length; U+FFFD for half a surrogate pair.
func unescapeRune(in []byte) (rune, int) {
	switch in[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return rune(in[1]), 2
	}
	r := hex4(in[2:])
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if len(in) >= 12 && in[6] == '\\' && in[7] == 'u' {
		if pair := utf16.DecodeRune(r, hex4(in[8:])); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return utf8.RuneError, 6
}

// loneSurrogate tells whether a valid JSON string has half a surrogate pair.
func loneSurrogate(in []byte) bool {
	for at := 0; at+1 < len(in); {
		if in[at] != '\\' {
			at++
			continue
		}
		r, n := unescapeRune(in[at:])
		if r == utf8.RuneError && utf16.IsSurrogate(hex4(in[at+2:])) {
			return true
		}
		at += n
	}
	return false
}

// hex4 returns the number that the first four bytes spell, or -1.
func hex4(in []byte) rune {
	if len(in) < 4 {
		return -1
	}
	var r rune
	for _, ch := range in[:4] {
		d := unhex(ch)
		if d < 0 {
			return -1
		}
		r = r<<4 | rune(d)
	}
	return r
}

func unhex(ch byte) int {
	switch {
	case '0' <= ch && ch <= '9':
		return int(ch - '0')
	case 'a' <= ch|0x20 && ch|0x20 <= 'f':
		return int(ch|0x20-'a') + 10
	default:
		return -1
	}
}

// appendEscaped appends s as it stands between the quotes of a JSON string.
// Bytes that are not UTF-8 become U+FFFD.
func appendEscaped[S []byte | string](dst []byte, s S) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		ch := s[i]
		if ch >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		i++
		if ch >= 0x20 && ch != '"' && ch != '\\' {
			continue
		}
		dst = append(dst, s[start:i-1]...)
		start = i
		switch ch {
		case '"', '\\':
			dst = append(dst, '\\', ch)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[ch>>4], hex[ch&15])
		}
	}
	return append(dst, s[start:]...)
}

// badUTF8 returns the position of the first byte that is not UTF-8.
func badUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}
