// Package expr is the expressions that configuration may hold over an event:
// CEL filters and values, templates with CEL in them, and jq programs. Beside
// them stands [Trip], a CEL condition over the counts of a circuit breaker.
//
// A caller makes one [Compiler] with [New], compiles every text when it loads
// the configuration, and keeps the results: [Filter], [Value], [Template] and
// [JQ]. All of them are safe for concurrent use and none changes an event.
//
// The one variable is event, the whole CloudEvent: event.type, event.subject,
// extensions, event.data.x. A context attribute is a string; an extension that
// was a JSON number or boolean stays one. JSON data is its value, text data a
// string, anything else bytes, with its base64 form in event.data_base64. Whole
// numbers of data that a double cannot hold are integers, all others doubles.
// Data is parsed when an expression looks at it and not before. An attribute
// that the event does not have is a run-time error, unless has() asked first.
//
// Everything is bounded: the text ([MaxText]), its nesting, what one evaluation
// may cost, the length of a result. Compile errors are [*Error], with the place
// inside the text; run-time errors are of kind invalid, because the same event
// fails again. A compiler costs nothing until the first CEL text is compiled.
package expr

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"

	"github.com/penstock-io/penstock/fault"
)

// The limits of every expression.
const (
	// MaxText is the longest text that is compiled, in bytes.
	MaxText = 16 << 10
	// MaxResult is the longest result of a value or template, in bytes.
	MaxResult = 1 << 20

	maxNesting = 100     // of parentheses, calls, selections
	maxNodes   = 20_000  // of the checked expression, macros expanded
	maxCost    = 2 << 20 // of one evaluation, in CEL's cost units
)

// Compiler compiles expressions. The zero value is not usable; see [New].
type Compiler struct {
	env   func() (*cel.Env, error)
	trips func() (*cel.Env, error)
	views sync.Pool // of *view
}

// New returns a compiler. The CEL environment behind it is made on first use.
func New() *Compiler {
	return &Compiler{
		env:   sync.OnceValues(func() (*cel.Env, error) { return newEnv(cel.Variable("event", cel.DynType)) }),
		trips: sync.OnceValues(newTripEnv),
	}
}

func newEnv(variables ...cel.EnvOption) (*cel.Env, error) {
	return cel.NewCustomEnv(append(variables,
		cel.StdLib(),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(MaxText),
		cel.ParserRecursionLimit(maxNesting),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexSize),
	)...)
}

// errInvalid gives every [Error] its kind.
var errInvalid = fault.New(fault.Invalid, "invalid expression")

// Error is what is wrong with the text of an expression. Its kind is invalid.
type Error struct {
	// Line and Column count from 1, in characters, inside the text.
	Line, Column int
	// Text names the wrong thing, lower case, no full stop.
	Text string
}

// Error returns the text with its place.
func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Text)
}

// Unwrap returns an error of kind invalid.
func (e *Error) Unwrap() error { return errInvalid }

// problem is an [Error] at the beginning of the text.
func problem(format string, args ...any) *Error {
	return &Error{Line: 1, Column: 1, Text: fmt.Sprintf(format, args...)}
}

// problemAt is an [Error] at a byte offset of text.
func problemAt(text string, offset int, format string, args ...any) *Error {
	before := text[:min(max(offset, 0), len(text))]
	line := strings.Count(before, "\n")
	start := strings.LastIndexByte(before, '\n') + 1
	return &Error{
		Line:   line + 1,
		Column: utf8.RuneCountInString(before[start:]) + 1,
		Text:   fmt.Sprintf(format, args...),
	}
}

// checkText refuses what no expression may be.
func checkText(text string) error {
	switch {
	case len(text) > MaxText:
		return problem("the expression has %d bytes, the limit is %d", len(text), MaxText)
	case !utf8.ValidString(text):
		for i, r := range text {
			if r != utf8.RuneError {
				continue
			}
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return problemAt(text, i, "byte 0x%02x is not UTF-8", text[i])
			}
		}
	case strings.TrimSpace(text) == "":
		return problem("the expression is empty")
	}
	return nil
}

// short returns text as it goes into an error message.
func short(text string) string {
	const limit = 80
	if len(text) <= limit {
		return text
	}
	cut := limit
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "..."
}
