package expr

import (
	"fmt"
	"regexp"
	"sync/atomic"

	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

const (
	// maxRegexSize is how many instructions a compiled pattern may have.
	maxRegexSize = 2000
	// maxRegexWork bounds instructions times bytes of text of one match: RE2
	// is linear in each.
	maxRegexWork = 64 << 20
	// What a unit of cost pays for: bytes made, bytes read, steps of a match.
	bytesMade, bytesRead, regexSteps = 10, 100, 64
)

// meter prices the calls of one program by what they really do. CEL's own
// prices need types known when compiling, and those of an event are not.
type meter struct {
	constant map[string]*pattern     // filled while planning, then read only
	last     atomic.Pointer[pattern] // the last one that was not constant
}

// CallCost returns the price of one call in CEL's units, or nil for CEL's own.
func (m *meter) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	price := 1
	switch {
	case function == operators.Add:
		price += grown(result)
	case function == matchesName && len(args) == 2:
		s, _ := args[0].(types.String)
		text, _ := args[1].(types.String)
		if p, err := m.pattern(string(text)); err == nil {
			price += len(s) / regexSteps * p.size
		}
	default:
		for _, arg := range args {
			price += length(arg) / bytesRead
		}
	}
	return new(uint64(price))
}

// grown is the price of a sum: a text was copied; a list will be walked.
func grown(v ref.Val) int {
	if list, ok := v.(traits.Lister); ok {
		n, _ := list.Size().(types.Int)
		return int(n)
	}
	return length(v) / bytesMade
}

func length(v ref.Val) int {
	switch v := v.(type) {
	case types.String:
		return len(v)
	case types.Bytes:
		return len(v)
	default:
		return 0
	}
}

// pattern is one compiled regular expression.
type pattern struct {
	text string
	re   *regexp.Regexp
	size int
}

func newPattern(text string) (*pattern, error) {
	size, err := types.RegexProgramSize(text)
	if err != nil {
		return nil, err
	}
	if size > maxRegexSize {
		return nil, fmt.Errorf("regex program size %d exceeds limit of %d", size, maxRegexSize)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	return &pattern{text, re, max(size, 1)}, nil
}

func (m *meter) pattern(text string) (*pattern, error) {
	if p, ok := m.constant[text]; ok {
		return p, nil
	}
	if p := m.last.Load(); p != nil && p.text == text {
		return p, nil
	}
	p, err := newPattern(text)
	if err == nil {
		m.last.Store(p)
	}
	return p, err
}

// matchesName is what the replaced call is called, so that CEL does not
// replace it in turn.
const matchesName = "matches (bounded)"

// decorate replaces CEL's comparisons by ones that are bounded, and its matches
// by one that bounds its work and compiles its pattern once.
func (m *meter) decorate(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	if compare := comparison(call); compare != nil {
		return compare, nil
	}
	if call.Function() != overloads.Matches || len(call.Args()) != 2 {
		return i, nil
	}
	if constant, ok := call.Args()[1].(interpreter.InterpretableConst); ok {
		if text, ok := constant.Value().(types.String); ok {
			p, err := newPattern(string(text))
			if err != nil {
				return nil, err
			}
			m.constant[p.text] = p
		}
	}
	return interpreter.NewCall(call.ID(), matchesName, call.OverloadID(), call.Args(), m.matches), nil
}

func (m *meter) matches(args ...ref.Val) ref.Val {
	if len(args) != 2 {
		return types.NoSuchOverloadErr()
	}
	s, ok := args[0].(types.String)
	text, isText := args[1].(types.String)
	if !ok || !isText {
		return types.NoSuchOverloadErr()
	}
	p, err := m.pattern(string(text))
	if err != nil {
		return types.WrapErr(err)
	}
	if len(s) > maxRegexWork/p.size {
		return types.NewErr("text of %d bytes is too long for matches with a pattern of %d instructions", len(s), p.size)
	}
	return types.Bool(p.re.MatchString(string(s)))
}
