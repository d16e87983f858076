package config

import (
	"slices"
	"strings"
)

// maxMember is the longest name of a member that enrich gives to the data, in
// bytes.
const maxMember = 256

// stepKinds are the fields of a step, one of which it has.
func stepKinds() []string { return []string{"filter", "transform", "set", "enrich", "save"} }

func (r *reader) step(n *node, path string) (s Step) {
	f := r.table(n, path, n.at, true)
	s.Place = n.at
	given := 0
	for _, kind := range stepKinds() {
		if f.get(kind) != nil {
			given++
		}
	}
	s.Filter = f.expr("filter")
	if f.get("transform") != nil {
		s.JQ = f.transform()
	}
	if f.get("set") != nil {
		s.Set = r.attributes(f.table("set"))
	}
	if f.get("enrich") != nil {
		s.Enrich = f.table("enrich").enrich()
	}
	if f.get("save") != nil {
		s.Save = f.table("save").save()
	}
	switch clean := f.done(); {
	case given > 1:
		r.hard(n.at, "make a step of each", "%s has more than one of %s", path, list(stepKinds()))
	case given == 0 && clean:
		r.hard(n.at, "", "%s has none of %s", path, list(stepKinds()))
	}
	return s
}

// enrich reads the fields of an enrich step; nil when there is no working with
// them.
func (f *fields) enrich() *Enrich {
	e := &Enrich{Store: f.text("store"), SecretStore: f.text("secretStore"), Key: f.expr("key"), As: f.text("as")}
	e.StorePlace = f.place("store")
	if e.SecretStore != "" {
		e.StorePlace = f.place("secretStore")
	}
	if !f.sound("key", "as") {
		return nil
	}
	switch {
	case e.Store != "" && e.SecretStore != "":
		f.r.hard(f.at, "make a step of each", "%s has both of store and secretStore", f.path)
	case e.Store == "" && e.SecretStore == "":
		f.r.hard(f.at, "", "%s has none of store and secretStore", f.path)
	}
	if len(e.As) > maxMember || strings.ContainsRune(e.As, 0) {
		f.r.hard(f.place("as"), "", "%s has %d bytes, at most %d are allowed", f.name("as"), len(e.As), maxMember)
	}
	return e
}

// save reads the fields of a save step, as enrich does.
func (f *fields) save() *Save {
	s := &Save{Store: f.text("store"), StorePlace: f.place("store"), Key: f.expr("key"), JQ: f.expr("jq"), TTL: f.duration("ttl", 0)}
	if !f.sound("store", "key") {
		return nil
	}
	return s
}

// sound tells whether a mapping has no other fields and all of these, and
// reports what it has not.
func (f *fields) sound(needed ...string) bool {
	if f.n == nil {
		return false // reported already
	}
	missing := slices.ContainsFunc(needed, func(name string) bool { return f.need(name) == "" })
	return f.done() && !missing
}
