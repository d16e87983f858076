package expr

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// The limits of a jq program.
const (
	// JQTimeout bounds one run of a program.
	JQTimeout = time.Second
	// MaxJQOutput is the longest result of a program, in bytes of JSON.
	MaxJQOutput = 16 << 20
)

// JQ is a jq program that makes new data of an event.
type JQ struct {
	text string
	code *gojq.Code
}

// CompileJQ compiles a jq program. Its input is the event as an object of its
// attributes and data; env, input, inputs and modules do not exist. Its error
// is an [*Error].
func (c *Compiler) CompileJQ(text string) (*JQ, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	if depth, at := nesting(text); depth > maxNesting {
		return nil, problemAt(text, at, "the program nests deeper than %d", maxNesting)
	}
	query, err := gojq.Parse(text)
	if err != nil {
		return nil, parseError(text, err)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, compileError(text, err)
	}
	return &JQ{text: text, code: code}, nil
}

// String returns the text of the program.
func (j *JQ) String() string { return j.text }

// Apply runs the program over e and returns e with the result as its data, as
// JSON of type application/json. Numbers that the program does not touch keep
// all their digits. A program without a result filters the event: Apply then
// returns nil and no error. More than one result, an error of the program, more
// than [MaxJQOutput] or more than [JQTimeout] are errors.
func (j *JQ) Apply(ctx context.Context, e *cloudevents.Event) (*cloudevents.Event, error) {
	run, cancel := context.WithTimeout(ctx, JQTimeout)
	defer cancel()
	data, err := j.run(run, e)
	switch {
	case err == nil && data == nil:
		return nil, nil
	case err == nil:
		return e.WithData("application/json", data), nil
	case ctx.Err() != nil: // the caller's time, not the program's
		return nil, fault.Wrap(ctx.Err(), "run %q", short(j.text))
	case run.Err() != nil:
		return nil, fault.New(fault.Invalid, "run %q: no result within %s", short(j.text), JQTimeout)
	default:
		return nil, fault.New(fault.Invalid, "run %q: %w", short(j.text), err)
	}
}

func (j *JQ) run(ctx context.Context, e *cloudevents.Event) ([]byte, error) {
	results := j.code.RunWithContext(ctx, object(e, forJQ))
	first, ok := results.Next()
	if !ok {
		return nil, nil
	}
	if err, failed := first.(error); failed {
		return nil, err
	}
	second, more := results.Next()
	if err, failed := second.(error); more && failed {
		return nil, err
	}
	if more {
		return nil, errors.New("more than one result: put them into an array, as in [.data[]]")
	}
	w := jqWriter{ctx: ctx}
	if err := w.write(first, 0); err != nil {
		return nil, err
	}
	return w.out, nil
}

// jqWriter writes a result as JSON. A result may hold one value in many places,
// so that it is short in memory and endless in text: the writer counts.
type jqWriter struct {
	ctx context.Context
	out []byte
}

func (w *jqWriter) write(v any, depth int) error {
	switch {
	case len(w.out) > MaxJQOutput:
		return fmt.Errorf("the result has more than %d bytes", MaxJQOutput)
	case depth > 1000:
		return errors.New("the result nests deeper than 1000")
	}
	switch v := v.(type) {
	case []any:
		return w.array(v, depth)
	case map[string]any:
		return w.object(v, depth)
	default:
		return w.scalar(v)
	}
}

func (w *jqWriter) scalar(v any) error {
	switch v := v.(type) {
	case nil:
		w.out = append(w.out, "null"...)
		return nil
	case bool:
		w.out = strconv.AppendBool(w.out, v)
		return nil
	case int:
		w.out = strconv.AppendInt(w.out, int64(v), 10)
		return nil
	case string:
		if len(v) > MaxJQOutput-min(len(w.out), MaxJQOutput) {
			return fmt.Errorf("the result has more than %d bytes", MaxJQOutput)
		}
	}
	b, err := gojq.Marshal(v)
	w.out = append(w.out, b...)
	return err
}

func (w *jqWriter) array(v []any, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.out = append(w.out, '[')
	for i, item := range v {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.write(item, depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

func (w *jqWriter) object(v map[string]any, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	slices.Sort(names)
	w.out = append(w.out, '{')
	for i, name := range names {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.scalar(name); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.write(v[name], depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

// nesting returns how deep the brackets of a program go, strings included, and
// where they are deepest.
func nesting(text string) (deepest, at int) {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(', '[', '{':
			if depth++; depth > deepest {
				deepest, at = depth, i
			}
		case ')', ']', '}':
			depth--
		}
	}
	return deepest, at
}

func parseError(text string, err error) error {
	e, ok := errors.AsType[*gojq.ParseError](err)
	if !ok {
		return problem("%s", short(err.Error()))
	}
	if e.Token == "" {
		return problemAt(text, len(text), "the program ends too early")
	}
	return problemAt(text, e.Offset-len(e.Token), "%s", e.Error())
}

// named finds the name that gojq complains about.
var named = regexp.MustCompile(`\$?[A-Za-z_][A-Za-z0-9_]*(?:/\d+|$)`)

// compileError finds the place of a name, which gojq does not tell.
func compileError(text string, err error) error {
	message := err.Error()
	name, _, _ := strings.Cut(named.FindString(message), "/")
	name = regexp.QuoteMeta(name)
	if strings.HasPrefix(message, "input(s)") {
		name = "inputs?"
	}
	word, wordErr := regexp.Compile(`(^|[^A-Za-z0-9_.$])` + name + `($|[^A-Za-z0-9_])`)
	if name == "" || wordErr != nil {
		return problem("%s", short(message))
	}
	found := word.FindStringSubmatchIndex(text)
	if found == nil {
		return problem("%s", short(message))
	}
	return problemAt(text, found[3], "%s", short(message))
}
