package component

import (
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/config"
)

// parse reads a value of the option. want is empty when it could be read, else
// it says what would have been right. The value is nil for an ignored option.
func (o *Option) parse(s string) (v any, want string) {
	switch o.Type {
	case "string":
		return o.parseWord(s)
	case "secret":
		return NewSecret(s), ""
	case "list":
		return o.parseList(s)
	case "ignored", "any":
		return nil, ""
	case "bool":
		b, err := config.ParseBool(s)
		return b, wanted(err, o.Type)
	}
	v, negative, err := o.parseNumber(strings.TrimSpace(s))
	if err != nil {
		return nil, wanted(err, o.Type)
	}
	if negative && o.notNegative() {
		return nil, "a " + o.Type + " that is not negative"
	}
	return v, ""
}

func (o *Option) parseNumber(s string) (v any, negative bool, err error) {
	switch o.Type {
	case "duration":
		d, err := config.ParseDuration(s)
		return d, d < 0, err
	case "size":
		n, err := config.ParseSize(s)
		return Size(n), n < 0, err
	case "number":
		f, err := strconv.ParseFloat(s, 64)
		if err == nil && (f-f != 0) { // an infinity or not a number
			err = strconv.ErrRange
		}
		return f, f < 0, err
	default:
		n, err := strconv.ParseInt(s, 10, o.bits())
		return n, n < 0, err
	}
}

func (o *Option) bits() int {
	if o.narrow {
		return strconv.IntSize
	}
	return 64
}

// notNegative tells whether a negative value makes no sense: durations and
// sizes, unless the default itself is negative, as in -1 for no limit.
func (o *Option) notNegative() bool {
	return (o.Type == "duration" || o.Type == "size") && !strings.HasPrefix(o.Default, "-")
}

func wanted(err error, typ string) string {
	if err == nil {
		return ""
	}
	return article(typ)
}

// parseWord finds the word among those allowed, without regard to case.
func (o *Option) parseWord(s string) (any, string) {
	if len(o.Enum) == 0 {
		return s, ""
	}
	for _, e := range o.Enum {
		if strings.EqualFold(e, strings.TrimSpace(s)) {
			return e, ""
		}
	}
	return nil, oneOf(o.Enum)
}

func (o *Option) parseList(s string) (any, string) {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		v, want := o.parseWord(part)
		if want != "" {
			return nil, "a list of " + want
		}
		list = append(list, v.(string))
	}
	return list, ""
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// article says what a value of the type looks like.
func article(typ string) string {
	switch typ {
	case "duration":
		return "a duration such as 1m30s, or a number of seconds"
	case "size":
		return "a number of bytes such as 1000, 64Ki or 4Mi"
	case "int":
		return "a whole number"
	case "number":
		return "a number"
	case "bool":
		return "true or false"
	case "list":
		return "a list such as a, b"
	}
	return "a text"
}
