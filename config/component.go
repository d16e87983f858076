package config

import (
	"fmt"
	"slices"
	"strings"
)

func (r *reader) component(d *fields, h header) Component {
	c := Component{Name: h.name, Scopes: h.scopes, Place: h.at}
	spec := d.table("spec")
	c.Type = spec.need("type")
	c.TypePlace = spec.place("type")
	c.Version = spec.text("version")
	if c.Version == "" {
		c.Version = "v1"
	}
	c.IgnoreErrors = spec.bool("ignoreErrors")
	c.InitTimeout = spec.duration("initTimeout", 0)
	if n := spec.get("metadata"); n != nil && n.kind != listNode {
		r.cover(n)
		r.filled = append(r.filled, n.text)
	}
	for i, n := range spec.items("metadata") {
		if it, ok := r.item(n, fmt.Sprintf("spec.metadata[%d]", i)); ok {
			c.Metadata = append(c.Metadata, it)
		}
	}
	spec.done()
	auth := d.table("auth")
	c.SecretStore = auth.text("secretStore")
	c.StorePlace = auth.place("secretStore")
	auth.done()
	r.veil(&c)
	return c
}

// veil takes values out of the source lines of places that are about something
// else: whoever writes a document in one line has all of its secrets there.
func (r *reader) veil(c *Component) {
	places := []*Place{&c.Place, &c.TypePlace, &c.StorePlace}
	for i := range c.Metadata {
		it := &c.Metadata[i]
		for _, p := range places {
			p.Text = without(p.Text, it.Value)
		}
		for j := range c.Metadata {
			if other := &c.Metadata[j]; i != j && other.Place.Line == it.Place.Line {
				other.Place.Text, other.NamePlace.Text = without(other.Place.Text, it.Value), without(other.NamePlace.Text, it.Value)
			}
		}
	}
	for i := range c.Metadata {
		places = append(places, &c.Metadata[i].Place, &c.Metadata[i].NamePlace)
	}
	for _, p := range places {
		r.hide(p)
	}
}

// cover notes every text below n that is no name, and long enough for a secret, as
// something that is not shown in source lines.
func (r *reader) cover(n *node) {
	before := len(r.secret)
	r.keep(n)
	for _, text := range r.secret[before:] {
		if len(text) >= shortestSecret {
			r.covered = append(r.covered, text)
		}
	}
	r.secret = r.secret[:before]
}

// without returns a source line without a value, unless that is too short to be a
// secret.
func without(line, value string) string {
	if len(value) < shortestSecret {
		return line
	}
	return strings.ReplaceAll(line, value, "***")
}

// item reads one entry of spec.metadata.
func (r *reader) item(n *node, path string) (Item, bool) {
	if n.kind == scalarNode {
		r.cover(n)
		r.hard(n.at, "write {name: NAME, value: VALUE}", "%s is a text, want a mapping", path)
		return Item{}, false
	}
	before := len(r.problems)
	defer func() {
		if len(r.problems) > before { // what is wrong may show a secret
			r.cover(n)
		}
	}()
	f := r.table(n, path, n.at, false)
	it := Item{Name: f.need("name"), NamePlace: f.place("name")}
	v := f.get("value")
	r.content(f, &it, true)
	if v != nil && !it.Secret {
		it.Value = r.template(v.value())
		it.Namespaced = strings.Contains(v.value(), "{namespace}")
	}
	return it, it.Name != ""
}

// content reads what an item holds, its value or where it is found; env tells
// whether that may be the environment. It ends the reading of f.
func (r *reader) content(f *fields, it *Item, env bool) {
	ways := []string{"value", "secretKeyRef"}
	want := "value and secretKeyRef"
	if env {
		ways = append(ways, "envRef")
		want = "value, secretKeyRef and envRef"
	}
	it.Place = it.NamePlace
	given := 0
	for _, one := range ways {
		if v := f.get(one); v != nil && (one != "value" || v.value() != "") {
			given++
			it.Place = v.at
		}
	}
	if v := f.get("value"); v != nil {
		it.Value = v.value()
	}
	if f.get("secretKeyRef") != nil {
		it.SecretRef = secretRef(f.table("secretKeyRef"))
	}
	if env {
		if name := f.text("envRef"); name != "" {
			r.env(it, name)
		}
	}
	empty := f.has("value")
	switch clean := f.done(); {
	case given > 1:
		r.hard(it.NamePlace, "keep one of them", "%s has more than one of %s", f.path, want)
	case given == 0 && !empty && clean:
		r.lenient(it.NamePlace, "", "%s has none of %s", f.path, want)
	}
}

func secretRef(f *fields) *SecretRef {
	ref := &SecretRef{Name: f.need("name"), Key: f.text("key")}
	if ref.Key == "" {
		ref.Key = ref.Name
	}
	f.done()
	return ref
}

// env fills in the value of an environment variable, unless it is one that
// holds a credential of the process itself.
func (r *reader) env(it *Item, name string) {
	upper := strings.ToUpper(name)
	for _, secret := range []string{"APP_API_TOKEN", "DAPR_", "PENSTOCK_"} {
		if strings.HasPrefix(upper, secret) {
			r.hard(it.Place, "give the value another variable", "environment variable %s may not be used in a resource", cut(name, 80))
			return
		}
	}
	if list, limited := r.o.Env("DAPR_ENV_KEYS"); limited && list != "" && !slices.Contains(strings.Fields(list), name) {
		r.hard(it.Place, "add it to DAPR_ENV_KEYS", "environment variable %s is not in DAPR_ENV_KEYS", cut(name, 80))
		return
	}
	value, ok := r.o.Env(name)
	if !ok {
		r.lenient(it.Place, "", "environment variable %s is not set", cut(name, 80))
	}
	it.Value, it.Secret = value, true
}

// template fills in the words in braces that Dapr knows; others stay.
func (r *reader) template(s string) string {
	if !strings.Contains(s, "{") {
		return s
	}
	pod, _ := r.o.Env("POD_NAME")
	return strings.NewReplacer("{appID}", r.o.AppID, "{namespace}", r.o.Namespace, "{podName}", pod, "{uuid}", r.o.UUID).Replace(s)
}
