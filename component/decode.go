package component

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/config"
)

// Decode fills an options struct from the items of a component of type typ and
// returns every problem with them. Others are the options that somebody else
// decodes from the same items; nothing is reported about those. A contract uses
// it for the options that all components of its kind share:
//
//	shared, problems := component.Decode[common](def.Type, items, def.Options)
//
// An item with an empty value counts as not given, so the default holds.
// Problems about an option that is missing have no place.
func Decode[O any](typ string, items []config.Item, others []Option) (O, config.Problems) {
	var o O
	d := newDecoder(typ, &o, others)
	d.leave = true
	problems := d.run(items, &o)
	return o, problems
}

// decode fills o, a pointer to an options struct, from items and returns every
// problem, those with common options included.
func decode(typ string, items []config.Item, common []Option, o any) config.Problems {
	return newDecoder(typ, o, common).run(items, o)
}

func newDecoder(typ string, o any, common []Option) *decoder {
	d := &decoder{
		typ: typ, target: reflect.ValueOf(o).Elem(),
		byName: map[string]*Option{}, given: map[string]config.Item{},
	}
	d.know(optionsOf(d.target.Interface()), common)
	return d
}

func (d *decoder) run(items []config.Item, o any) config.Problems {
	d.secrets = secretValues(items, func(name string) *Option { return d.byName[strings.ToLower(name)] })
	for _, it := range items {
		d.item(it)
	}
	d.absent()
	if c, ok := o.(Checker); ok && len(d.problems) == d.unknown && !d.pending {
		d.checked(c.Check())
	}
	for i := range d.problems {
		at := &d.problems[i].Place
		if d.hide(at.Text) != at.Text {
			at.Text = "" // the source line shows a secret
		}
	}
	return d.problems
}

// decoder is one decoding of one component's items.
type decoder struct {
	typ    string
	target reflect.Value
	own    []Option
	others []Option
	words  []string           // every known name, for suggestions
	byName map[string]*Option // lower-case name or alias
	common map[*Option]bool   // those that are not fields of target
	rest   []int              // index of the field tagged "*", or nil
	starts []*Option          // those that take names by their beginning
	any    bool               // another struct takes unknown keys
	leave  bool               // say nothing about common options

	given    map[string]config.Item // first item of an option, by Option.Name
	secrets  []string               // values that must not be shown
	unknown  int                    // problems that are only unknown keys
	pending  bool                   // a value is not known yet
	problems config.Problems
}

func (d *decoder) know(own, common []Option) {
	d.own, d.others, d.common = own, common, map[*Option]bool{}
	for i := range common {
		d.common[&common[i]] = true
		d.learn(&common[i])
	}
	// Own names come last: they win over a common option of the same name.
	for i := range own {
		d.learn(&own[i])
	}
}

func (d *decoder) learn(opt *Option) {
	if opt.Name == "*" {
		if d.common[opt] {
			d.any = true
		} else {
			d.rest = opt.field
		}
		return
	}
	if opt.prefix() != "" {
		d.starts = append(d.starts, opt)
		return
	}
	d.words = append(d.words, opt.Name)
	for _, name := range append([]string{opt.Name}, opt.Aliases...) {
		d.byName[strings.ToLower(name)] = opt
	}
}

// item takes one item in.
func (d *decoder) item(it config.Item) {
	opt := d.byName[strings.ToLower(it.Name)]
	if d.leave && d.common[opt] {
		return
	}
	key := it.Name
	if opt != nil {
		key = opt.Name
	}
	if first, dup := d.given[key]; dup {
		d.twice(it, first)
		return
	}
	into := d.rest
	if start := d.start(it.Name); start != nil {
		if d.common[start] {
			return // a field of the other struct
		}
		into = start.field
	}
	switch {
	case opt == nil && into == nil && !d.any:
		d.strange(it)
		return
	case opt == nil && into == nil:
		return
	}
	d.given[key] = it
	if unresolved(it) {
		d.pending = true
		return
	}
	if opt == nil {
		d.keep(it, into)
		return
	}
	if it.Value != "" {
		d.value(it, opt)
	}
}

// unresolved tells whether the item's value still has to be fetched.
func unresolved(it config.Item) bool {
	return !it.Secret && (it.SecretRef != nil || it.EnvRef != "")
}

func (d *decoder) twice(it, first config.Item) {
	hint := "keep one of them"
	if first.NamePlace.Line > 0 {
		hint = fmt.Sprintf("the first is on line %d; keep one of them", first.NamePlace.Line)
	}
	text := fmt.Sprintf("option %q is given twice", short(it.Name))
	if it.Name != first.Name {
		text = fmt.Sprintf("options %q and %q are the same", short(first.Name), short(it.Name))
	}
	d.add(namePlace(it), text, hint)
}

// unknownShown is the length from which the value of an unknown option is not shown.
const unknownShown = 8

func (d *decoder) strange(it config.Item) {
	d.unknown++
	hint := config.DidYouMean(it.Name, d.words)
	if hint == "" {
		hint = fmt.Sprintf("see penstock describe %s", d.typ)
	}
	at := namePlace(it)
	if len(it.Value) >= unknownShown { // it may be a secret whose option is misspelt
		at.Text = strings.ReplaceAll(at.Text, it.Value, "***")
	}
	d.problems = append(d.problems, config.Problem{
		Place: at, Lenient: true, Hint: hint,
		Text: fmt.Sprintf("%s has no option %q", d.typ, short(it.Name)),
	})
}

// namePlace is where the name of the item stands.
func namePlace(it config.Item) config.Place {
	if it.NamePlace != (config.Place{}) {
		return it.NamePlace
	}
	return it.Place
}

func (d *decoder) add(at config.Place, text, hint string) {
	d.problems = append(d.problems, config.Problem{Place: at, Text: text, Hint: hint})
}

// start is the option that takes a name by its beginning, or nil.
func (d *decoder) start(name string) *Option {
	for _, opt := range d.starts {
		if p := opt.prefix(); len(name) > len(p) && strings.EqualFold(name[:len(p)], p) {
			return opt
		}
	}
	return nil
}

// keep puts an item that nothing knows by its name into a map.
func (d *decoder) keep(it config.Item, into []int) {
	f := d.target.FieldByIndex(into)
	if f.IsNil() {
		f.Set(reflect.ValueOf(map[string]string{}))
	}
	f.SetMapIndex(reflect.ValueOf(it.Name), reflect.ValueOf(it.Value))
}

// value parses the item's value; one of the common options is only checked.
func (d *decoder) value(it config.Item, opt *Option) {
	v, want := opt.parse(it.Value)
	if want == "" {
		if !d.common[opt] {
			d.set(opt, v)
		}
		return
	}
	found := strconv.Quote(short(it.Value))
	if it.Secret || opt.Type == "secret" {
		found = "***"
	}
	hint := ""
	if len(opt.Enum) > 0 && found != "***" {
		if near := config.Nearest(it.Value, opt.Enum); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
	} else if opt.Example != "" {
		hint = "for example " + opt.Example
	}
	d.add(it.Place, fmt.Sprintf("option %q is %s, want %s", opt.Name, found, want), hint)
}

// set stores a parsed value, whose type may only be near that of the field.
func (d *decoder) set(opt *Option, v any) {
	if v != nil {
		f := d.target.FieldByIndex(opt.field)
		f.Set(reflect.ValueOf(v).Convert(f.Type()))
	}
}

// absent fills in defaults and reports required options that are missing.
func (d *decoder) absent() {
	for i := range d.own {
		opt := &d.own[i]
		if d.filled(opt) {
			continue
		}
		if opt.Default != "" {
			v, _ := opt.parse(opt.Default)
			d.set(opt, v)
		} else if opt.Required {
			d.missing(opt)
		}
	}
	for i := range d.others {
		opt := &d.others[i]
		if opt.Required && !d.leave && d.byName[strings.ToLower(opt.Name)] == opt && !d.filled(opt) {
			d.missing(opt)
		}
	}
}

// filled tells whether the option has a value, be it one to come.
func (d *decoder) filled(opt *Option) bool {
	it, given := d.given[opt.Name]
	return given && (it.Value != "" || unresolved(it))
}

func (d *decoder) missing(opt *Option) {
	hint := "set it to " + article(opt.Type)
	if opt.Example != "" {
		hint = "for example " + opt.Example
	}
	if it, given := d.given[opt.Name]; given {
		d.add(it.Place, fmt.Sprintf("option %q of %s is empty", opt.Name, d.typ), hint)
		return
	}
	d.add(config.Place{}, fmt.Sprintf("%s needs option %q", d.typ, opt.Name), hint)
}

// several is what errors.Join makes.
type several interface {
	error
	Unwrap() []error
}

// checked turns the answer of a Checker into problems, each at its option.
func (d *decoder) checked(err error) {
	if err == nil {
		return
	}
	if e, ok := err.(*OptionError); ok {
		d.add(d.placeOf(e.Option), d.hide(e.Error()), "")
		return
	}
	if all, ok := errors.AsType[several](err); ok {
		for _, e := range all.Unwrap() {
			d.checked(e)
		}
		return
	}
	at := config.Place{}
	if e, ok := errors.AsType[*OptionError](err); ok {
		at = d.placeOf(e.Option)
	}
	d.add(at, d.hide(err.Error()), "")
}

func (d *decoder) placeOf(option string) config.Place {
	if opt := d.byName[strings.ToLower(option)]; opt != nil {
		option = opt.Name
	}
	return d.given[option].Place
}

// hide takes the secret values out of a text that a Checker wrote.
func (d *decoder) hide(text string) string { return hide(d.secrets, text) }

// short cuts a value so that a message stays readable.
func short(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
