package config

import (
	"strings"
	"unicode/utf8"
)

// maxMore bounds the source text kept for a value that spans several lines, in
// bytes.
const maxMore = 32 << 10

// span adds to a place the source lines that a value goes on with, so that
// [Place.Inside] can point into it.
func (r *reader) span(p Place, text string) Place {
	if p.Line < 1 || p.Line > len(r.lines) || strings.Contains(r.lines[p.Line-1], text) {
		return p
	}
	rest := r.lines[p.Line:]
	left, size := len(strings.Join(strings.Fields(text), "")), 0
	for i, line := range rest {
		size += len(line) + 1
		left -= len(strings.Join(strings.Fields(line), ""))
		if left <= 0 || size > maxMore {
			rest = rest[:i+1]
			break
		}
	}
	p.More = strings.Join(rest, "\n")
	return p
}

// Inside returns the place of a position inside a value that stands at p. Line
// and column count from 1, in characters of the value, whose lines need not be
// those of the file: folding joins them, indentation goes, quotes are added. A
// position that cannot be found, as after escapes, gives the nearest place
// before it that can.
func (p Place) Inside(value string, line, column int) Place {
	if p.Text == "" {
		return p // nothing to find it in
	}
	at := offset(value, line, column)
	lines := append([]string{p.Text}, strings.Split(p.More, "\n")...)
	if p.More == "" {
		lines = lines[:1]
	}
	found, done := p, 0
	found.More = ""
	for i, source := range lines {
		start := 0 // in bytes
		if i == 0 {
			start = p.begin()
		}
		content := strings.TrimSpace(source[start:])
		block := i == 0 && len(lines) > 1 && (strings.HasPrefix(content, "|") || strings.HasPrefix(content, ">"))
		if block || content == "" {
			continue
		}
		start += strings.Index(source[start:], content)
		for done < len(value) && strings.ContainsRune(" \t\n", rune(value[done])) {
			done++
		}
		same := common(value[done:], content)
		if same == 0 {
			break
		}
		// The end of a value counts to its last line.
		if within := at - done; within <= same || i == len(lines)-1 {
			found.Line, found.Text = p.Line+i, strings.TrimRight(source, " \t")
			found.Column = utf8.RuneCountInString(source[:start+min(max(within, 0), same)]) + 1
			return found
		}
		done += same
		found.Line, found.Text = p.Line+i, strings.TrimRight(source, " \t")
		found.Column = utf8.RuneCountInString(source[:start+same]) + 1
	}
	return found
}

// begin is where the value begins in the source line, after a quotation mark.
func (p Place) begin() int {
	at := offset(p.Text, 1, p.Column)
	if at < len(p.Text) && (p.Text[at] == '\'' || p.Text[at] == '"') {
		at++
	}
	return at
}

// offset is the byte at a line and column of a text.
func offset(text string, line, column int) int {
	at := 0
	for range line - 1 {
		next := strings.IndexByte(text[at:], '\n')
		if next < 0 {
			return len(text)
		}
		at += next + 1
	}
	for range column - 1 {
		if at >= len(text) {
			break
		}
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return at
}

// common is the length of the longest beginning that two texts share, in bytes.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
