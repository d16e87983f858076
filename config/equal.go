package config

import "reflect"

// Changes is what differs between two sets.
type Changes struct {
	Components    Delta[Component]
	Subscriptions Delta[Subscription]
	Pipelines     Delta[Pipeline]
	Resiliencies  Delta[Resiliency]
	HTTPEndpoints Delta[HTTPEndpoint]
	// Configuration tells whether the Configuration differs.
	Configuration bool
}

// Empty tells whether nothing differs.
func (c Changes) Empty() bool {
	return c.Components.empty() && c.Subscriptions.empty() && c.Pipelines.empty() && c.Resiliencies.empty() && c.HTTPEndpoints.empty() && !c.Configuration
}

// Delta is what differs between two lists of named documents. Changed holds the
// new ones.
type Delta[T any] struct{ Added, Removed, Changed []T }

func (d Delta[T]) empty() bool { return len(d.Added)+len(d.Removed)+len(d.Changed) == 0 }

// Diff compares two sets by kind and name. Where something stands in its file
// does not count, nor does the order of documents. A nil set is empty.
func Diff(old, fresh *Set) Changes {
	if old == nil {
		old = &Set{}
	}
	if fresh == nil {
		fresh = &Set{}
	}
	return Changes{
		Components:    delta(old.Components, fresh.Components, func(c Component) string { return c.Name }),
		Subscriptions: delta(old.Subscriptions, fresh.Subscriptions, func(s Subscription) string { return s.Name }),
		Pipelines:     delta(old.Pipelines, fresh.Pipelines, func(p Pipeline) string { return p.Name }),
		Resiliencies:  delta(old.Resiliencies, fresh.Resiliencies, func(r Resiliency) string { return r.Name }),
		HTTPEndpoints: delta(old.HTTPEndpoints, fresh.HTTPEndpoints, func(e HTTPEndpoint) string { return e.Name }),
		Configuration: !Equal(old.Configuration, fresh.Configuration),
	}
}

func delta[T any](old, fresh []T, name func(T) string) (d Delta[T]) {
	before := make(map[string]T, len(old))
	for _, t := range old {
		before[name(t)] = t
	}
	for _, t := range fresh {
		was, ok := before[name(t)]
		switch {
		case !ok:
			d.Added = append(d.Added, t)
		case !Equal(was, t):
			d.Changed = append(d.Changed, t)
		}
		delete(before, name(t))
	}
	for _, t := range old {
		if _, gone := before[name(t)]; gone {
			d.Removed = append(d.Removed, t)
		}
	}
	return d
}

// Equal tells whether two documents, or parts of them, say the same, wherever
// they stand.
func Equal[T any](a, b T) bool { return same(reflect.ValueOf(a), reflect.ValueOf(b)) }

// same is reflect.DeepEqual without places, and with nil and empty alike.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Struct:
		if a.Type() == reflect.TypeFor[Place]() {
			return true
		}
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() && b.IsNil()
		}
		return same(a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		return sameMaps(a, b)
	}
	return a.Equal(b)
}

func sameMaps(a, b reflect.Value) bool {
	if a.Len() != b.Len() {
		return false
	}
	for it := a.MapRange(); it.Next(); {
		other := b.MapIndex(it.Key())
		if !other.IsValid() || !same(it.Value(), other) {
			return false
		}
	}
	return true
}
