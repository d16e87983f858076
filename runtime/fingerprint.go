package runtime

import (
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"reflect"
	"slices"

	"github.com/penstock-io/penstock/config"
)

// fingerprint is equal for documents that say the same, wherever they stand.
func fingerprint(v any) uint64 {
	h := fnv.New64a()
	write(h, reflect.ValueOf(v))
	return h.Sum64()
}

// sums gives each component a number that is another one when its document, or
// that of a secret store it reads, directly or not, says something else. The
// list has each store before those who need it.
func sums(ordered []config.Component) map[string]uint64 {
	out := make(map[string]uint64, len(ordered))
	for _, c := range ordered {
		sum := fingerprint(c)
		if slices.ContainsFunc(c.Metadata, func(it config.Item) bool { return it.SecretRef != nil }) {
			sum = fingerprint([]uint64{sum, out[c.SecretStore]})
		}
		out[c.Name] = sum
	}
	return out
}

func write(w io.Writer, v reflect.Value) {
	if v.Type() == reflect.TypeFor[config.Place]() {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fmt.Fprintf(w, "|%d:", i)
			write(w, v.Field(i))
		}
	case reflect.Slice:
		fmt.Fprintf(w, "[%d", v.Len())
		for i := range v.Len() {
			fmt.Fprint(w, ",")
			write(w, v.Index(i))
		}
	case reflect.Map:
		byKey := map[string]reflect.Value{}
		for it := v.MapRange(); it.Next(); {
			byKey[it.Key().String()] = it.Value()
		}
		for _, k := range slices.Sorted(maps.Keys(byKey)) {
			fmt.Fprintf(w, "{%q=", k)
			write(w, byKey[k])
		}
	case reflect.Pointer:
		if !v.IsNil() {
			fmt.Fprint(w, "*")
			write(w, v.Elem())
		}
	default:
		fmt.Fprintf(w, "%#v", v.Interface())
	}
}
