package expr

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"

	"github.com/penstock-io/penstock/cloudevents"
)

// answer is what a plain comparison knows.
type answer uint8

const (
	// unsure leaves the event to CEL: an attribute is missing, or is perhaps
	// not a string. So CEL alone decides what is odd, and says the error.
	unsure answer = iota
	no
	yes
)

func answerOf(b bool) answer {
	if b {
		return yes
	}
	return no
}

// plainFunc answers a part of a filter without CEL.
type plainFunc func(e *cloudevents.Event) answer

// simplify returns the filter as plain comparisons of attributes with
// constants, or nil when it is more than that.
func simplify(x ast.Expr) plainFunc {
	switch x.Kind() {
	case ast.LiteralKind:
		if b, ok := x.AsLiteral().(types.Bool); ok {
			fixed := answerOf(bool(b))
			return func(*cloudevents.Event) answer { return fixed }
		}
	case ast.SelectKind:
		name, ok := attribute(x)
		if ok && x.AsSelect().IsTestOnly() {
			return func(e *cloudevents.Event) answer {
				_, found := e.Attr(name)
				if !found {
					_, found = e.Member(name)
				}
				return answerOf(found)
			}
		}
	case ast.CallKind:
		return simplifyCall(x.AsCall())
	}
	return nil
}

func simplifyCall(call ast.CallExpr) plainFunc {
	args := call.Args()
	switch call.FunctionName() {
	case operators.LogicalAnd:
		return junction(args, no, yes)
	case operators.LogicalOr:
		return junction(args, yes, no)
	case operators.LogicalNot:
		if f := simplify(args[0]); f != nil {
			return func(e *cloudevents.Event) answer { return negate(f(e)) }
		}
	case operators.Equals:
		return equality(args[0], args[1])
	case operators.NotEquals:
		if f := equality(args[0], args[1]); f != nil {
			return func(e *cloudevents.Event) answer { return negate(f(e)) }
		}
	case operators.In:
		return membership(args[0], args[1])
	case overloads.StartsWith:
		return method(call, strings.HasPrefix)
	case overloads.EndsWith:
		return method(call, strings.HasSuffix)
	case overloads.Contains:
		return method(call, strings.Contains)
	}
	return nil
}

func negate(a answer) answer {
	switch a {
	case yes:
		return no
	case no:
		return yes
	default:
		return unsure
	}
}

// junction is && (decided by no) or || (decided by yes). As in CEL, one part
// that decides wins over another that cannot be answered.
func junction(args []ast.Expr, decides, otherwise answer) plainFunc {
	parts := make([]plainFunc, len(args))
	for i, arg := range args {
		if parts[i] = simplify(arg); parts[i] == nil {
			return nil
		}
	}
	return func(e *cloudevents.Event) answer {
		result := otherwise
		for _, part := range parts {
			switch part(e) {
			case decides:
				return decides
			case unsure:
				result = unsure
			}
		}
		return result
	}
}

func equality(a, b ast.Expr) plainFunc {
	name, ok := attribute(a)
	if !ok {
		a, b = b, a
		name, ok = attribute(a)
	}
	want, isText := text(b)
	if !ok || !isText || a.AsSelect().IsTestOnly() {
		return nil
	}
	return compare(name, func(got string) bool { return got == want })
}

func membership(item, list ast.Expr) plainFunc {
	name, ok := attribute(item)
	if !ok || item.AsSelect().IsTestOnly() || list.Kind() != ast.ListKind {
		return nil
	}
	elements := list.AsList().Elements()
	set := make([]string, len(elements))
	for i, el := range elements {
		if set[i], ok = text(el); !ok {
			return nil
		}
	}
	return compare(name, func(got string) bool { return slices.Contains(set, got) })
}

func method(call ast.CallExpr, test func(s, part string) bool) plainFunc {
	if !call.IsMemberFunction() || len(call.Args()) != 1 {
		return nil
	}
	name, ok := attribute(call.Target())
	part, isText := text(call.Args()[0])
	if !ok || !isText || call.Target().AsSelect().IsTestOnly() {
		return nil
	}
	return compare(name, func(got string) bool { return test(got, part) })
}

func compare(name string, test func(string) bool) plainFunc {
	return func(e *cloudevents.Event) answer {
		got, ok := e.Attr(name)
		if !ok || maybeTyped(name, got) {
			return unsure
		}
		return answerOf(test(got))
	}
}

// attribute returns the name when x is event.name and not the data.
func attribute(x ast.Expr) (string, bool) {
	if x.Kind() != ast.SelectKind {
		return "", false
	}
	sel := x.AsSelect()
	if sel.Operand().Kind() != ast.IdentKind || sel.Operand().AsIdent() != "event" {
		return "", false
	}
	name := sel.FieldName()
	return name, name != "data" && name != "data_base64"
}

func text(x ast.Expr) (string, bool) {
	if x.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := x.AsLiteral().(types.String)
	return string(s), ok
}
