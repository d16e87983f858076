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
	return c
}

// item reads one entry of spec.metadata.
func (r *reader) item(n *node, path string) (Item, bool) {
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
