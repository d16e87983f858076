package component

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Secret is a setting that must not be seen. It prints as "***" everywhere.
type Secret struct{ text string }

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text; call it as late as possible.
func (s Secret) Reveal() string { return s.text }

// IsZero tells whether nothing was set.
func (s Secret) IsZero() bool { return s.text == "" }

// String hides the text.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return "***"
}

// GoString hides the text from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the text from encoders and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Size is a number of bytes, written like 64Ki, 4Mi or 1000.
type Size int64

// Ignored is the type of an option that Dapr has and we do not need; its doc
// gives the reason. A value is accepted and named once in the log.
type Ignored struct{}

// Option is one setting, as read from a field of an options struct:
//
//	Brokers []string `meta:"brokers,required" alias:"hosts" doc:"Seed brokers." default:"" enum:"a|b" example:"host:9092"`
//
// The field type is one of string, bool, int, int64, float64, [time.Duration],
// [Size], [Secret], []string (comma separated) and [Ignored]. A field
// map[string]string tagged `meta:"*"` takes all keys that nothing else knows, one
// tagged `meta:"header:*"` those that begin with "header:", and likewise with a dot
// in the place of the colon.
// An embedded struct stands for its fields: the options that all components of
// one backing system share.
type Option struct {
	Name     string   // as written in YAML; compared without regard to case
	Aliases  []string // other accepted names
	Type     string   // string, bool, int, number, duration, size, secret, list, ignored, any
	Doc      string   // ends with a full stop
	Default  string
	Example  string
	Enum     []string
	Required bool

	field  []int // index of the field, through embedded structs
	narrow bool  // an int, which may have 32 bits
}

// OptionsOf reads the field tags of an options struct.
func OptionsOf(o any) []Option { return optionsOf(o) }

func optionsOf(o any) []Option {
	t := reflect.TypeOf(o)
	if t == nil || t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("component: options must be a struct, not %T", o))
	}
	var opts []Option
	seen := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			continue // its fields come next
		}
		tag, ok := f.Tag.Lookup("meta")
		if !ok {
			panic(fmt.Sprintf("component: %s.%s has no meta tag", t, f.Name))
		}
		name, flag, _ := strings.Cut(tag, ",")
		opt := Option{
			Name: name, Type: typeWord(f.Type), Doc: f.Tag.Get("doc"),
			Default: f.Tag.Get("default"), Example: f.Tag.Get("example"),
			Required: flag == "required", field: f.Index, narrow: f.Type.Kind() == reflect.Int,
		}
		if e := f.Tag.Get("enum"); e != "" {
			opt.Enum = strings.Split(e, "|")
		}
		if a := f.Tag.Get("alias"); a != "" {
			opt.Aliases = strings.Split(a, ",")
		}
		if wrong := opt.mistake(flag, f.IsExported(), seen); wrong != "" {
			panic(fmt.Sprintf("component: %s.%s: %s", t, f.Name, wrong))
		}
		opts = append(opts, opt)
	}
	return opts
}

// prefix is what the names begin with that the option takes; empty unless it is
// tagged like "header:*" or "meta.*".
func (o *Option) prefix() string {
	for _, sep := range []string{":", "."} {
		if p, ok := strings.CutSuffix(o.Name, sep+"*"); ok {
			return p + sep
		}
	}
	return ""
}

// mistake says what is wrong with the tags of an option, or nothing.
func (o *Option) mistake(flag string, exported bool, seen map[string]bool) string {
	for _, name := range append([]string{o.Name}, o.Aliases...) {
		if seen[strings.ToLower(name)] {
			return "has the name of another option"
		}
		seen[strings.ToLower(name)] = true
	}
	switch {
	case !exported:
		return "is not exported"
	case flag != "" && flag != "required":
		return fmt.Sprintf("flag %q is not known", flag)
	case o.Type == "":
		return "has a type that options cannot have"
	case o.Doc == "":
		return "has no doc tag"
	case o.Name == "":
		return "has no name in its meta tag"
	case (o.Name == "*" || o.prefix() != "") != (o.Type == "any"):
		return `only a map[string]string is tagged "*"`
	case len(o.Enum) > 0 && o.Type != "string" && o.Type != "list":
		return "only a string or a list has an enum"
	case o.Required && o.Default != "":
		return "is required and has a default"
	}
	if o.Default != "" {
		if _, want := o.parse(o.Default); want != "" {
			return fmt.Sprintf("default %q is not %s", o.Default, want)
		}
	}
	return ""
}

func typeWord(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[Ignored]():
		return "ignored"
	case reflect.TypeFor[[]string]():
		return "list"
	case reflect.TypeFor[map[string]string]():
		return "any"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int64:
		return "int"
	case reflect.Float64:
		return "number"
	}
	return ""
}

// OptionError is a problem with one option.
type OptionError struct {
	Option string
	Err    error
}

// OptionErrorf makes an [OptionError].
func OptionErrorf(option, format string, args ...any) error {
	return &OptionError{option, fault.New(fault.Invalid, format, args...)}
}

// Error names the option.
func (e *OptionError) Error() string { return fmt.Sprintf("option %q: %v", e.Option, e.Err) }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }
