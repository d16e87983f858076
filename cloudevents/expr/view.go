package expr

import (
	"encoding/base64"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/penstock-io/penstock/cloudevents"
)

// view is an event as CEL sees it: the activation and the variable in one. It
// is a map that is filled only as far as the expression looks. A view belongs
// to one evaluation at a time; the next one over the same event finds the data
// parsed.
type view struct {
	event *cloudevents.Event
	bytes []byte  // of the data; nil until asked for
	data  ref.Val // parsed; nil until asked for
	whole traits.Mapper
}

var (
	_ cel.Activation = (*view)(nil)
	_ traits.Mapper  = (*view)(nil)
)

func (c *Compiler) view(e *cloudevents.Event) *view {
	v, ok := c.views.Get().(*view)
	if !ok {
		return &view{event: e}
	}
	if v.event != e {
		*v = view{event: e}
	}
	return v
}

// ResolveName returns the view itself for the one variable there is.
func (v *view) ResolveName(name string) (any, bool) {
	if name == "event" {
		return v, true
	}
	return nil, false
}

// Parent returns nil: nothing is behind the event.
func (v *view) Parent() cel.Activation { return nil }

// Find looks one attribute, or data, up.
func (v *view) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	if name == "data" || name == "data_base64" {
		return v.findData(name == "data")
	}
	text, ok := v.event.Attr(string(name))
	if !ok {
		return v.findMember(string(name))
	}
	switch value := attrValue(v.event, string(name), text).(type) {
	case string:
		return types.String(value), true
	default:
		return types.DefaultTypeAdapter.NativeToValue(value), true
	}
}

// findMember looks an opaque member up, which is parsed only now.
func (v *view) findMember(name string) (ref.Val, bool) {
	raw, ok := v.event.Member(name)
	if !ok {
		return nil, false
	}
	return types.DefaultTypeAdapter.NativeToValue(memberValue(raw, forCEL)), true
}

func (v *view) findData(parsed bool) (ref.Val, bool) {
	if v.bytes == nil {
		v.bytes = v.event.Data()
	}
	switch {
	case v.bytes == nil:
		return nil, false
	case !parsed && isBinary(v.bytes):
		return types.String(base64.StdEncoding.EncodeToString(v.bytes)), true
	case !parsed:
		return nil, false
	case v.data == nil:
		v.data = types.DefaultTypeAdapter.NativeToValue(dataValue(v.event.DataContentType(), v.bytes, forCEL))
	}
	return v.data, true
}

// all is the event as an ordinary map, for the rare expression that walks it.
func (v *view) all() traits.Mapper {
	if v.whole == nil {
		v.whole = types.NewStringInterfaceMap(types.DefaultTypeAdapter, object(v.event, forCEL))
	}
	return v.whole
}

// Get returns one attribute, or an error value.
func (v *view) Get(key ref.Val) ref.Val {
	val, ok := v.Find(key)
	if ok || types.IsError(val) {
		return val
	}
	return types.NewErr("no such key: %v", key.Value())
}

// Contains tells whether the event has the attribute.
func (v *view) Contains(key ref.Val) ref.Val {
	val, ok := v.Find(key)
	if !ok && types.IsError(val) {
		return val
	}
	return types.Bool(ok)
}

// Size counts attributes and data.
func (v *view) Size() ref.Val { return v.all().Size() }

// Iterator walks the names.
func (v *view) Iterator() traits.Iterator { return v.all().Iterator() }

// ConvertToNative converts as a map does.
func (v *view) ConvertToNative(t reflect.Type) (any, error) { return v.all().ConvertToNative(t) }

// ConvertToType converts as a map does.
func (v *view) ConvertToType(t ref.Type) ref.Val { return v.all().ConvertToType(t) }

// Equal compares as a map does.
func (v *view) Equal(other ref.Val) ref.Val {
	if o, ok := other.(*view); ok {
		other = o.all()
	}
	return v.all().Equal(other)
}

// Type is map.
func (v *view) Type() ref.Type { return types.MapType }

// Value returns the event as a map.
func (v *view) Value() any { return v.all().Value() }
