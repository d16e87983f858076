package config

import (
	"fmt"
	"strings"
)

// Place is a position in a configuration file, for people to find.
type Place struct {
	// File is the path as it was given, or a word such as "--config".
	File string
	// Line and Column count from 1; zero means unknown.
	Line, Column int
	// Text is the source line, for the message.
	Text string
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
			fmt.Fprintf(&b, "\n       | %s^", strings.Repeat(" ", p.Place.Column-1))
		}
	}
	return b.String()
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
