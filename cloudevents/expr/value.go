package expr

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Value is a CEL expression whose result is used as text.
type Value struct {
	prog *program
	attr string // when the expression is event.attr and nothing more
}

// CompileValue compiles a CEL expression with a result that has a text: a
// string, number, boolean, timestamp or duration. Its error is an [*Error].
func (c *Compiler) CompileValue(text string) (*Value, error) {
	p, err := c.compile(text)
	if err != nil {
		return nil, err
	}
	switch p.out.Kind() {
	case types.DynKind, types.AnyKind, types.StringKind, types.BoolKind, types.IntKind,
		types.UintKind, types.DoubleKind, types.TimestampKind, types.DurationKind:
	default:
		return nil, problem("the result is %s, which has no text form: want a string, number, boolean or timestamp",
			article(p.out.String()))
	}
	v := &Value{prog: p}
	if name, ok := attribute(p.root); ok && p.root.Kind() == ast.SelectKind && !p.root.AsSelect().IsTestOnly() {
		v.attr = name
	}
	return v, nil
}

// String evaluates the expression over e and returns the text of its result:
// whole numbers without a fraction or exponent, timestamps as RFC 3339 in UTC.
// A result without a text (null, list, map, bytes), or one longer than
// [MaxResult], is an error.
func (v *Value) String(e *cloudevents.Event) (string, error) {
	if v.attr != "" {
		// Text of a typed attribute is canonical already.
		if text, ok := e.Attr(v.attr); ok && len(text) <= MaxResult {
			return text, nil
		}
	}
	var text string
	err := v.prog.eval(e, func(out ref.Val) (err error) {
		text, err = canonical(out)
		return err
	})
	if err == nil && len(text) > MaxResult {
		return "", fault.New(fault.Invalid, "evaluate %q: the result has %d bytes, the limit is %d",
			short(v.prog.text), len(text), MaxResult)
	}
	return text, err
}

// canonical is the text of a scalar.
func canonical(v ref.Val) (string, error) {
	switch v := v.(type) {
	case types.String:
		return string(v), nil
	case types.Bool:
		return strconv.FormatBool(bool(v)), nil
	case types.Int:
		return strconv.FormatInt(int64(v), 10), nil
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), nil
	case types.Double:
		f := float64(v)
		if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
			return strconv.FormatFloat(f, 'g', -1, 64), nil
		}
		return strconv.FormatFloat(f, 'f', -1, 64), nil
	case types.Timestamp:
		return v.Time.UTC().Format(time.RFC3339Nano), nil
	case types.Duration:
		return v.Duration.String(), nil
	default:
		return "", fmt.Errorf("the result is %s, which has no text form", article(v.Type().TypeName()))
	}
}
