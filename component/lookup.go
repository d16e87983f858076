package component

import (
	"slices"
	"strings"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Finder finds the definition of a component's type, with the errors that
// [List.Find] has. It may know more than a list does, and more later.
type Finder interface {
	Find(typ, version string) (Definition, error)
}

// List is the components of a build.
type List []Definition

// Find returns the definition of a type such as "bindings.cron", in any case,
// or of one that it has besides. An empty version means the usual one. Its error is of kind NotFound for a type
// that is not there, with the nearest one, and of kind Invalid for a version that
// the type does not have, with those it has.
func (l List) Find(typ, version string) (Definition, error) {
	for _, d := range l {
		same := func(name string) bool { return strings.EqualFold(name, typ) }
		if !same(d.Type) && !slices.ContainsFunc(d.About.Also, same) {
			continue
		}
		has := func(v string) bool { return strings.EqualFold(v, version) }
		if version == "" || slices.ContainsFunc(d.Versions, has) {
			return d, nil
		}
		return Definition{}, fault.New(fault.Invalid, "component type %q has no version %q; known: %s", d.Type, short(version), strings.Join(d.Versions, ", "))
	}
	if near := l.nearest(typ); near != "" {
		return Definition{}, fault.New(fault.NotFound, "unknown component type %q; did you mean %q?", short(typ), near)
	}
	return Definition{}, fault.New(fault.NotFound, "unknown component type %q; see penstock describe for those that are known", short(typ))
}

// nearest looks among the types of the same kind by name alone, since the kind
// is most of a short type, and then among all of them.
func (l List) nearest(typ string) string {
	kind, name, _ := strings.Cut(typ, ".")
	var names, types []string
	for _, d := range l {
		types = append(types, d.Type)
		if k, n, _ := strings.Cut(d.Type, "."); strings.EqualFold(k, kind) {
			names = append(names, n)
		}
	}
	if near := config.Nearest(name, names); near != "" {
		return strings.ToLower(kind) + "." + near
	}
	if k, _, ok := strings.Cut(config.Nearest(typ, types), "."); ok && !strings.EqualFold(k, kind) {
		return config.Nearest(typ, types)
	}
	return ""
}

// Names returns every type with each of its versions, as kind.name/version,
// sorted.
func (l List) Names() []string {
	var names []string
	for _, d := range l {
		for _, v := range d.Versions {
			names = append(names, d.Type+"/"+v)
		}
	}
	slices.Sort(names)
	return names
}
