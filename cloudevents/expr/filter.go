package expr

import (
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/penstock-io/penstock/cloudevents"
)

// Filter is a CEL expression that is true or false of an event.
type Filter struct {
	prog  *program
	plain plainFunc // nil when only CEL can tell
}

// CompileFilter compiles a CEL expression with a boolean result, such as
// event.type == "order.placed" && event.data.total > 100. Its error is an
// [*Error].
func (c *Compiler) CompileFilter(text string) (*Filter, error) {
	p, err := c.compile(text)
	if err != nil {
		return nil, err
	}
	if !p.out.IsExactType(cel.BoolType) && !p.out.IsExactType(cel.DynType) {
		return nil, problem("the result is %s, a filter must be true or false", article(p.out.String()))
	}
	return &Filter{prog: p, plain: simplify(p.root)}, nil
}

// Match tells whether the filter holds for e. An error means that it cannot be
// told: an attribute is missing, types do not fit, the limit of cost is
// reached, the result is not boolean.
func (f *Filter) Match(e *cloudevents.Event) (bool, error) {
	if f.plain != nil {
		if a := f.plain(e); a != unsure {
			return a == yes, nil
		}
	}
	return f.slow(e)
}

func (f *Filter) slow(e *cloudevents.Event) (bool, error) {
	var matched bool
	err := f.prog.eval(e, func(out ref.Val) error {
		b, ok := out.(types.Bool)
		if !ok {
			return fmt.Errorf("the result is %s, a filter must be true or false", article(out.Type().TypeName()))
		}
		matched = bool(b)
		return nil
	})
	return matched, err
}

// String returns the text of the filter.
func (f *Filter) String() string { return f.prog.text }

// article puts a or an in front of the name of a type.
func article(name string) string {
	switch name {
	case "null_type":
		return "null"
	case "int":
		return "an " + name
	}
	return "a " + name
}
