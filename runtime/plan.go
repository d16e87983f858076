package runtime

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
)

// compiler compiles expressions and collects what is wrong with them.
type compiler struct {
	expr     *expr.Compiler
	problems config.Problems
}

// add notes a problem, at the place inside the expression when it is known.
func (c *compiler) add(x config.Expr, what string, err error) {
	at := x.Place
	text := err.Error()
	if e, ok := errors.AsType[*expr.Error](err); ok {
		text = e.Text
		at = at.Inside(x.Text, e.Line, e.Column)
	}
	c.problems = append(c.problems, config.Problem{Place: at, Text: what + ": " + text})
}

func (c *compiler) filter(x config.Expr, what string) *expr.Filter {
	f, err := c.expr.CompileFilter(x.Text)
	if err != nil {
		c.add(x, what, err)
	}
	return f
}

func (c *compiler) value(x config.Expr, what string) *expr.Value {
	v, err := c.expr.CompileValue(x.Text)
	if err != nil {
		c.add(x, what, err)
	}
	return v
}

func (c *compiler) template(text string, at config.Place, what string) *expr.Template {
	t, err := c.expr.CompileTemplate(text)
	if err != nil {
		c.add(config.Expr{Text: text, Place: at}, what, err)
	}
	return t
}

// templates compiles the metadata of an endpoint.
func (c *compiler) templates(to config.Endpoint) map[string]*expr.Template {
	out := make(map[string]*expr.Template, len(to.Metadata))
	for _, k := range slices.Sorted(maps.Keys(to.Metadata)) {
		out[k] = c.template(to.Metadata[k], to.MetadataPlaces[k], "metadata "+k)
	}
	return out
}

// rules compiles a subscription's routing rules.
func (c *compiler) rules(s config.Subscription) []rule {
	out := make([]rule, 0, len(s.Rules))
	for _, r := range s.Rules {
		var f *expr.Filter
		if r.Match != "" {
			f = c.filter(config.Expr{Text: r.Match, Place: r.Place}, "match of subscription "+s.Name)
		}
		out = append(out, rule{filter: f, path: r.Path})
	}
	return out
}

func filterStep(f *expr.Filter) router.Step {
	return router.Step{Name: "filter", Do: func(_ context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		ok, err := f.Match(e)
		if err != nil {
			return e, new(cloudevents.Dropped("filter: "+err.Error(), fault.As(fault.Invalid, err)))
		}
		if !ok {
			o := cloudevents.Dropped("filtered", nil)
			o.Discard = true
			return e, &o
		}
		return e, nil
	}}
}

func transformStep(j *expr.JQ) router.Step {
	return router.Step{Name: "transform", Do: func(ctx context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		out, err := j.Apply(ctx, e)
		switch {
		case err != nil && ctx.Err() != nil:
			return e, new(cloudevents.Left("stopped during transform"))
		case err != nil:
			return e, new(cloudevents.Dropped("transform: "+err.Error(), fault.As(fault.Invalid, err)))
		case out == nil:
			o := cloudevents.Dropped("filtered by transform", nil)
			o.Discard = true
			return e, &o
		}
		return out, nil
	}}
}

func (c *compiler) setStep(s config.Step) router.Step {
	names := slices.Sorted(maps.Keys(s.Set))
	values := make([]*expr.Value, len(names))
	for i, name := range names {
		values[i] = c.value(s.Set[name], "set "+name)
	}
	return router.Step{Name: "set", Do: func(_ context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		attrs := make([]cloudevents.Attr, len(names))
		for i, v := range values {
			text, err := v.String(e)
			if err != nil {
				return e, new(cloudevents.Dropped("set "+names[i]+": "+err.Error(), fault.As(fault.Invalid, err)))
			}
			attrs[i] = cloudevents.Attr{Name: names[i], Value: text}
		}
		return e.With(attrs...), nil
	}}
}
