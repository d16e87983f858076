package expr

import (
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// maxCompared bounds the values inside lists and maps that are compared. A
// value may stand in many places at once, so that it is short in memory and
// endless to compare; what an event holds is far below.
const maxCompared = 4 << 20

// comparison replaces ==, != and in by ones that count before they compare. It
// returns nil where one side is a constant that is no list or map: that is
// quick as it is.
func comparison(call interpreter.InterpretableCall) interpreter.InterpretableV2 {
	var compare func(a, b ref.Val) ref.Val
	switch call.Function() {
	case operators.Equals:
		compare = types.Equal
	case operators.NotEquals:
		compare = func(a, b ref.Val) ref.Val { return types.Bool(types.Equal(a, b) != types.True) }
	case operators.In:
		compare = contains
	default:
		return nil
	}
	if len(call.Args()) != 2 || isSimple(call.Args()[0]) || isSimple(call.Args()[1]) {
		return nil
	}
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		left := maxCompared
		for _, arg := range args {
			if left = count(arg, left); left < 0 {
				return types.NewErr("values of more than %d parts are too large to compare", maxCompared)
			}
		}
		return compare(args[0], args[1])
	})
}

func contains(item, container ref.Val) ref.Val {
	if c, ok := container.(traits.Container); ok {
		return c.Contains(item)
	}
	return types.MaybeNoSuchOverloadErr(container)
}

func isSimple(i interpreter.InterpretableV2) bool {
	constant, ok := i.(interpreter.InterpretableConst)
	if !ok {
		return false
	}
	_, list := constant.Value().(traits.Lister)
	_, object := constant.Value().(traits.Mapper)
	return !list && !object
}

// count takes the values in v from left; less than zero means too many.
func count(v ref.Val, left int) int {
	if left--; left < 0 {
		return left
	}
	object, isMap := v.(traits.Mapper)
	list, isList := v.(traits.Lister)
	var items traits.Iterator
	switch {
	case isMap:
		items = object.Iterator()
	case isList:
		items = list.Iterator()
	default:
		return left
	}
	for left >= 0 && items.HasNext() == types.True {
		item := items.Next()
		if isMap {
			item = object.Get(item)
		}
		left = count(item, left)
	}
	return left
}
