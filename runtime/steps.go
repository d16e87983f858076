package runtime

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"
	"unicode/utf8"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/state"
)

// steps compiles the steps of a pipeline. Those that ask a store find it in ps
// by name each time, so that one which took another's place is used.
func (c *compiler) steps(p config.Pipeline, ps *parts) []router.Step {
	var out []router.Step
	limit := cmp.Or(p.Timeout, defaultTimeout)
	for _, s := range p.Steps {
		switch {
		case s.Filter.Text != "":
			out = append(out, filterStep(c.filter(s.Filter, "filter")))
		case s.JQ.Text != "":
			out = append(out, transformStep(c.program(s.JQ, "transform")))
		case s.Enrich != nil:
			out = append(out, c.enrichStep(*s.Enrich, ps, limit))
		case s.Save != nil:
			out = append(out, c.saveStep(*s.Save, ps, limit))
		default:
			out = append(out, c.setStep(s))
		}
	}
	return out
}

// storesOf names the stores that the steps of a pipeline use.
func storesOf(p config.Pipeline) (names []string) {
	for _, s := range p.Steps {
		switch {
		case s.Enrich != nil:
			names = append(names, cmp.Or(s.Enrich.Store, s.Enrich.SecretStore))
		case s.Save != nil:
			names = append(names, s.Save.Store)
		}
	}
	return names
}

func (c *compiler) program(x config.Expr, what string) *expr.JQ {
	j, err := c.expr.CompileJQ(x.Text)
	if err != nil {
		c.add(x, what, err)
	}
	return j
}

// enrichStep puts what a store has under a key into the event's data.
func (c *compiler) enrichStep(s config.Enrich, ps *parts, limit time.Duration) router.Step {
	key := c.value(s.Key, "enrich key")
	read := func(ctx context.Context, key string) ([]byte, error) { return readState(ctx, ps, s.Store, key) }
	if s.SecretStore != "" {
		read = func(ctx context.Context, key string) ([]byte, error) { return readSecret(ctx, ps, s.SecretStore, key) }
	}
	return router.Step{Name: "enrich", Do: func(ctx context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		name, err := key.String(e)
		if err != nil {
			return e, unfit("enrich key", err)
		}
		bound, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		value, err := read(bound, name)
		if err != nil {
			return e, unkept(ctx, "enrich", ps.held(cmp.Or(s.Store, s.SecretStore), err))
		}
		out, err := withMember(e, s.As, value)
		if err != nil {
			return e, unfit("enrich", err)
		}
		return out, nil
	}}
}

// saveStep keeps the event's data, or what a program makes of the event, in a
// state store.
func (c *compiler) saveStep(s config.Save, ps *parts, limit time.Duration) router.Step {
	key := c.value(s.Key, "save key")
	var program *expr.JQ
	if s.JQ.Text != "" {
		program = c.program(s.JQ, "save")
	}
	return router.Step{Name: "save", Do: func(ctx context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		name, err := key.String(e)
		if err != nil {
			return e, unfit("save key", err)
		}
		kept := e
		if program != nil {
			kept, err = program.Apply(ctx, e)
			switch {
			case err != nil && ctx.Err() != nil:
				return e, new(cloudevents.Left("stopped during save"))
			case err != nil:
				return e, unfit("save", err)
			case kept == nil: // nothing to save
				return e, nil
			}
		}
		bound, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := writeState(bound, ps, s, name, kept.Data()); err != nil {
			return e, unkept(ctx, "save", ps.held(s.Store, err))
		}
		return e, nil
	}}
}

// unfit is the outcome for an event that a step cannot do anything with: it
// stays so.
func unfit(what string, err error) *cloudevents.Outcome {
	return new(cloudevents.Dropped(what+": "+err.Error(), fault.As(fault.Invalid, err)))
}

// unkept is the outcome of a step whose store said no. Only what the event itself
// is to blame for gives it up; whatever else there is, it waits, and the steps
// are run again.
func unkept(ctx context.Context, what string, err error) *cloudevents.Outcome {
	switch {
	case ctx.Err() != nil:
		return new(cloudevents.Left("stopped during " + what))
	case fault.KindOf(err) == fault.Invalid:
		return unfit(what, err)
	}
	return new(cloudevents.Retried(fault.Wrap(err, "%s", what), fault.RetryAfter(err)))
}

// readState reads an item as JSON: null when there is none, a text when it is
// no JSON, base64 when it is no text either.
func readState(ctx context.Context, ps *parts, store, key string) ([]byte, error) {
	s, err := ps.stateOf(store)
	if err != nil {
		return nil, err
	}
	it, err := s.Get(ctx, key, state.Read{})
	switch {
	case err != nil:
		return nil, err
	case !it.Found:
		return []byte("null"), nil
	case json.Valid(it.Value):
		return it.Value, nil
	case utf8.Valid(it.Value):
		return json.Marshal(string(it.Value))
	}
	return json.Marshal(it.Value)
}

// readSecret reads a secret as JSON: a text when its one value has its name, else
// an object of its values; null when there is none.
func readSecret(ctx context.Context, ps *parts, store, key string) ([]byte, error) {
	s, err := ps.storeOf(store)
	if err != nil {
		return nil, err
	}
	values, err := s.Get(ctx, key, nil)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return []byte("null"), nil
	case err != nil:
		return nil, err
	}
	if v, ok := values[key]; ok && len(values) == 1 {
		return json.Marshal(v)
	}
	return json.Marshal(values)
}

func writeState(ctx context.Context, ps *parts, s config.Save, key string, data []byte) error {
	store, err := ps.stateOf(s.Store)
	if err != nil {
		return err
	}
	if len(data) == 0 {
		data = []byte("null")
	}
	return store.Apply(ctx, []state.Change{{Key: key, Value: data, Binary: !json.Valid(data), TTL: s.TTL}})
}

var errNoObject = errors.New("the data is no JSON object")

// withMember returns the event with a member of its data, which must be a JSON
// object or nothing, set to a JSON value. The others stay as they are written.
func withMember(e *cloudevents.Event, name string, value []byte) (*cloudevents.Event, error) {
	data := e.Data()
	if len(data)+len(value) > expr.MaxJQOutput {
		return nil, fault.New(fault.Invalid, "the data would have more than %d bytes", expr.MaxJQOutput)
	}
	out := make([]byte, 0, len(data)+len(name)+len(value)+8)
	out = append(out, '{')
	add := func(name string, value []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		quoted, _ := json.Marshal(name) // of a text it cannot fail
		out = append(append(append(out, quoted...), ':'), value...)
	}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := members(data, func(other string, value []byte) {
			if other != name {
				add(other, value)
			}
		}); err != nil {
			return nil, err
		}
	}
	add(name, value)
	return e.WithData("application/json", append(out, '}')), nil
}

// members calls each with the members of a JSON object, in their order.
func members(data []byte, each func(name string, value []byte)) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errNoObject
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return errNoObject
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return errNoObject
		}
		each(name.(string), value)
	}
	if _, err := d.Token(); err != nil {
		return errNoObject
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errNoObject
	}
	return nil
}
