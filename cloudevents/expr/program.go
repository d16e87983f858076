package expr

import (
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types/ref"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// program is one compiled CEL text.
type program struct {
	c    *Compiler
	text string
	out  *cel.Type
	root ast.Expr
	prog cel.Program
}

// compile compiles an expression over an event.
func (c *Compiler) compile(text string) (*program, error) {
	return c.compileWith(c.env, "the only variable is event, as in event.type or event.data.id", text)
}

// compileWith compiles in an environment; there says which variables it has.
func (c *Compiler) compileWith(make func() (*cel.Env, error), there, text string) (*program, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	env, err := make()
	if err != nil {
		return nil, fault.New(fault.Internal, "make CEL environment: %w", err)
	}
	checked, issues := env.Compile(text)
	if issues != nil && issues.Err() != nil {
		return nil, issueError(text, there, issues)
	}
	m := &meter{constant: map[string]*pattern{}}
	prog, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.CustomDecoratorV2(m.decorate),
		cel.CostTracking(m),
		cel.CostLimit(maxCost),
	)
	if err != nil {
		return nil, problem("%s", plain(err.Error()))
	}
	return &program{
		c: c, text: text, prog: prog,
		out: checked.OutputType(), root: checked.NativeRep().Expr(),
	}, nil
}

// issueError is the first thing that CEL found wrong.
func issueError(text, there string, issues *cel.Issues) *Error {
	list := issues.Errors()
	if len(list) == 0 {
		return problem("%s", plain(issues.Err().Error()))
	}
	first := list[0]
	e := &Error{Line: 1, Column: 1, Text: plain(first.Message)}
	if loc := first.Location; loc != nil && loc.Line() > 0 {
		e.Line, e.Column = loc.Line(), loc.Column()+1
	}
	name, ok := undeclared(first.Message)
	switch {
	case !ok:
	case !regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\s*\(`).MatchString(text):
		e.Text = fmt.Sprintf("unknown name %q: %s", name, there)
	default:
		e.Text = fmt.Sprintf("unknown function %q: there are has, size, contains, startsWith, endsWith, matches, exists, all, map, filter, int, double, string, timestamp and duration", name)
	}
	return e
}

var noOverload = regexp.MustCompile(`^found no matching overload for '([^']+)' applied to '\(?(.*?)\)?'$`)

// unreadable explains what CEL cannot take for a word.
func unreadable(text string) string {
	switch {
	case text == "=":
		return `unexpected "="; write == to compare`
	case strings.HasPrefix(text, "'"), strings.HasPrefix(text, `"`):
		return "the quoted text has no end"
	}
	return fmt.Sprintf("unexpected %q", short(text))
}

// undeclared is the name that CEL does not know.
func undeclared(message string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(message, "undeclared reference to '")
	name, _, _ = strings.Cut(rest, "'")
	return name, ok
}

// plain rewrites CEL's messages in our tone and says what does exist.
func plain(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	message = strings.TrimPrefix(message, "Syntax error: ")
	if strings.HasPrefix(message, "mismatched input '<EOF>'") {
		return "the expression ends too early"
	}
	if rest, ok := strings.CutPrefix(message, "token recognition error at: '"); ok {
		return unreadable(strings.TrimSpace(strings.TrimSuffix(rest, "'")))
	}
	if m := noOverload.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("%s cannot be applied to (%s)", strings.Trim(m[1], "_@"), m[2])
	}
	message, _, _ = strings.Cut(message, " expecting ") // lists every token there is
	message = strings.Replace(message, "extraneous input", "unexpected", 1)
	message = strings.Replace(message, "mismatched input", "unexpected", 1)
	message = strings.TrimSuffix(strings.TrimSpace(message), ".")
	if message == "" {
		return "not an expression"
	}
	// A lone capital at the beginning is CEL's; words such as JSON stay.
	if len(message) > 1 && message[1] >= 'a' && message[1] <= 'z' {
		message = strings.ToLower(message[:1]) + message[1:]
	}
	return short(message)
}

// eval runs the program over e and hands the result to use. The result must
// not be kept: it may refer to a view that is used again.
func (p *program) eval(e *cloudevents.Event, use func(ref.Val) error) error {
	v := p.c.view(e)
	defer p.c.views.Put(v)
	out, _, err := p.prog.Eval(v)
	if err == nil {
		err = use(out)
	}
	if err != nil {
		return fault.New(fault.Invalid, "evaluate %q: %w", short(p.text), err)
	}
	return nil
}
