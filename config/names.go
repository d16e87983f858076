package config

import (
	"slices"
	"strings"
)

// nameResolution reads spec.nameResolution.
func (r *reader) nameResolution(spec *fields) NameResolution {
	f := spec.table("nameResolution")
	if f.n == nil {
		return NameResolution{}
	}
	v := NameResolution{Component: f.need("component"), Version: f.text("version"), Place: f.place("component")}
	if n := f.get("configuration"); n != nil {
		if n.kind == tableNode {
			v.Metadata = r.flat("", n, nil)
		} else {
			r.cover(n)
			r.hard(n.at, "", "spec.nameResolution.configuration is a text, want a mapping")
		}
	}
	f.done()
	return v
}

// flat adds the options of a mapping to list.
func (r *reader) flat(prefix string, n *node, list []Item) []Item {
	for _, p := range n.pairs {
		name := prefix + p.key
		if p.value.kind == tableNode {
			list = r.flat(name+".", p.value, list)
			continue
		}
		value := p.value.value()
		if texts, ok := p.value.texts(); ok {
			value = strings.Join(texts, ",")
		}
		list = append(list, Item{Name: name, Value: r.template(value), NamePlace: p.at, Place: p.value.at})
	}
	return list
}

// texts returns what a list of nothing but scalars holds.
func (n *node) texts() (texts []string, ok bool) {
	if n.kind != listNode {
		return nil, false
	}
	for _, v := range n.list {
		if v.kind != scalarNode {
			return nil, false
		}
		texts = append(texts, v.value())
	}
	return texts, true
}

// selfWords are variables that Dapr fills in itself, because they are about the
// process; what resolves names does so here.
func selfWords() []string {
	return []string{"APP_ID", "APP_PORT", "HOST_ADDRESS", "DAPR_HTTP_PORT", "DAPR_GRPC_PORT", "DAPR_PORT"}
}

// expandNames puts environment variables into spec.nameResolution of a document.
// Those about this process stay as ${NAME}, unless they are set.
func (r *reader) expandNames(document *node) {
	for _, key := range []string{"spec", "nameResolution"} {
		var found *node
		for _, p := range document.pairs {
			if strings.EqualFold(p.key, key) {
				found = p.value
			}
		}
		if found == nil {
			return
		}
		document = found
	}
	env := r.o.Env
	r.o.Env = func(name string) (string, bool) {
		value, ok := env(name)
		if !ok && slices.Contains(selfWords(), name) {
			return "${" + name + "}", true
		}
		return value, ok
	}
	r.expand(document)
	r.o.Env = env
	document.own = true
}
