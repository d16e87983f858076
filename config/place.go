package config

import (
	"fmt"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// Place is a position in a configuration file, for people to find.
type Place struct {
	// File is the path as it was given, or a word such as "--config".
	File string
	// Line and Column count from 1; zero means unknown.
	Line, Column int
	// Text is the source line, for the message.
	Text string
	// More are the source lines after it that an expression goes on with.
	More string
}

// String returns file:line:column.
func (p Place) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
}

// Problem is one thing wrong in the configuration.
type Problem struct {
	Place Place
	// Text names the wrong thing, lower case, no full stop.
	Text string
	// Hint says what to do, often the nearest right word. May be empty.
	Hint string
	// Lenient marks what a file that runs under Dapr may contain: an error in
	// check and with --strict, a warning in serve.
	Lenient bool
	// Cause is the error behind the problem, when it came from somewhere else.
	Cause error
}

// String returns "file:line:column: text; hint" and the marked source line.
func (p Problem) String() string {
	var b strings.Builder
	if at := p.Place.String(); at != "" {
		b.WriteString(at + ": ")
	}
	b.WriteString(p.Text)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	if p.Place.Text != "" {
		fmt.Fprintf(&b, "\n  %4d | %s", p.Place.Line, p.Place.Text)
		if p.Place.Column > 0 {
			fmt.Fprintf(&b, "\n       | %s^", blank(p.Place.Text, p.Place.Column-1))
		}
	}
	return b.String()
}

// blank returns what is as wide as the first n letters of a text.
func blank(text string, n int) string {
	var b strings.Builder
	for _, c := range text {
		if n == 0 {
			break
		}
		n--
		if c != '\t' {
			c = ' '
		}
		b.WriteRune(c)
	}
	return b.String() + strings.Repeat(" ", n)
}

// Problems is a list of them, and an error when it is not empty.
type Problems []Problem

// Error joins the problems, one after the other.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives problems the kind Invalid, or that of the causes when doing the
// same again may help all of them.
func (ps Problems) Unwrap() error {
	for _, p := range ps {
		if !fault.Retriable(p.Cause) {
			return fault.New(fault.Invalid, "the configuration is wrong")
		}
	}
	if len(ps) == 0 {
		return nil
	}
	return ps[0].Cause
}

// Split returns the problems that are errors for a strict or a lenient reader,
// and the rest, which are warnings.
func (ps Problems) Split(strict bool) (errs, warnings Problems) {
	for _, p := range ps {
		if p.Lenient && !strict {
			warnings = append(warnings, p)
		} else {
			errs = append(errs, p)
		}
	}
	return errs, warnings
}

// Err returns ps as an error, or nil when there is no problem.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}
