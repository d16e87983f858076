package config

import (
	"fmt"
	"slices"
	"strings"
)

// HTTPEndpoint is a Dapr HTTPEndpoint document: a web server that has a name.
type HTTPEndpoint struct {
	Name    string
	BaseURL string
	// Headers are sent with every request, in their order.
	Headers []Item
	// TLS has the items of spec.clientTLS that are there, by the names of
	// [TLSFields]. What they hold is PEM.
	TLS []Item
	// Renegotiation is a word of [Renegotiations], or empty.
	Renegotiation string
	SecretStore   string // auth.secretStore
	Scopes        []string
	// Place is that of the document; the others are those of the fields. None has a
	// source line that holds a value.
	Place, BaseURLPlace, TLSPlace, StorePlace Place
}

// The fields of spec.clientTLS that hold PEM.
const (
	RootCA      = "rootCA"
	Certificate = "certificate"
	PrivateKey  = "privateKey"
)

// TLSFields lists the fields of spec.clientTLS that hold PEM.
func TLSFields() []string { return []string{RootCA, Certificate, PrivateKey} }

// Renegotiations lists the words of spec.clientTLS.renegotiation: whether a server
// may ask for another handshake never, once or as often as it likes.
func Renegotiations() []string {
	return []string{"RenegotiateNever", "RenegotiateOnceAsClient", "RenegotiateFreelyAsClient"}
}

// httpEndpoint reads the document. What it holds beside the names of things may be
// secret, so no message shows a line of it that holds a value.
func (r *reader) httpEndpoint(d *fields, h header) HTTPEndpoint {
	e := HTTPEndpoint{Name: h.name, Scopes: h.scopes, Place: h.at}
	spec := d.table("spec")
	e.BaseURL = strings.TrimSpace(spec.need("baseUrl"))
	e.BaseURLPlace = spec.place("baseUrl")
	if strings.ContainsAny(e.BaseURL, "@?#") { // it may hold a password or a key
		r.secret = append(r.secret, e.BaseURL)
	}
	first := len(r.problems)
	r.keep(spec.get("headers"))
	r.keep(spec.get("clientTLS"))
	e.Headers = r.headers(spec)
	t := spec.table("clientTLS")
	e.TLSPlace = t.at
	e.TLS = r.pems(t)
	for i := range r.problems[first:] {
		p := &r.problems[first+i]
		p.Place.Text = ""
		if what, rest, found := strings.Cut(p.Text, ` is "`); found {
			p.Text = what + " is a text" + rest[strings.LastIndex(rest, `"`)+1:]
		}
	}
	e.Renegotiation = t.renegotiation()
	t.done()
	spec.done()
	auth := d.table("auth")
	e.SecretStore = auth.text("secretStore")
	e.StorePlace = auth.place("secretStore")
	auth.done()
	r.conceal(&e)
	return e
}

// headers reads spec.headers.
func (r *reader) headers(spec *fields) (list []Item) {
	for i, n := range spec.items("headers") {
		path := fmt.Sprintf("spec.headers[%d]", i)
		if n.kind == scalarNode {
			r.hard(n.at, "write {name: NAME, value: VALUE}", "%s is a text, want a mapping", path)
			continue
		}
		f := r.table(n, path, n.at, false)
		it := Item{Name: f.need("name"), NamePlace: f.place("name")}
		r.content(f, &it, true)
		if it.Name != "" {
			list = append(list, it)
		}
	}
	return list
}

// pems reads what holds PEM in spec.clientTLS.
func (r *reader) pems(t *fields) (list []Item) {
	for _, name := range TLSFields() {
		n := t.get(name)
		if n == nil {
			continue
		}
		if n.kind == scalarNode {
			r.hard(n.at, "write {value: PEM} or {secretKeyRef: {name: NAME, key: KEY}}", "%s is a text, want a mapping", t.name(name))
			continue
		}
		it := Item{Name: name, NamePlace: n.at}
		r.content(t.table(name), &it, false)
		list = append(list, it)
	}
	return list
}

// keep notes every text below n that is no name as something that no message may
// show.
func (r *reader) keep(n *node) {
	if n == nil {
		return
	}
	for _, v := range n.list {
		r.keep(v)
	}
	for _, p := range n.pairs {
		switch strings.ToLower(p.key) {
		case "name", "key", "envref", "renegotiation":
		default:
			r.keep(p.value)
		}
	}
	for line := range strings.Lines(n.text) {
		if line = strings.TrimSpace(line); line != "" {
			r.secret = append(r.secret, line)
		}
	}
}

// conceal takes the source lines that hold a value out of the places of e.
func (r *reader) conceal(e *HTTPEndpoint) {
	for _, p := range []*Place{&e.Place, &e.BaseURLPlace, &e.TLSPlace, &e.StorePlace} {
		r.hide(p)
	}
	for _, list := range [][]Item{e.Headers, e.TLS} {
		for i := range list {
			r.hide(&list[i].Place)
			r.hide(&list[i].NamePlace)
		}
	}
}

// hide takes the source line out of a place when it holds a secret of the
// document, and out of the line what is covered.
func (r *reader) hide(p *Place) {
	if slices.ContainsFunc(r.secret, func(s string) bool { return strings.Contains(p.Text, s) }) {
		p.Text = ""
	}
	for _, text := range r.covered {
		p.Text = without(p.Text, text)
	}
}

func (f *fields) renegotiation() string {
	word := f.text("renegotiation")
	for _, known := range Renegotiations() {
		if word == "" || strings.EqualFold(word, known) {
			return word
		}
	}
	f.r.hard(f.place("renegotiation"), DidYouMean(word, Renegotiations()), "%s is %q, want one of %s",
		f.name("renegotiation"), cut(word, 80), strings.Join(Renegotiations(), ", "))
	return ""
}

// ResolveEndpoint is [Resolve] for the headers and the TLS of an endpoint.
func ResolveEndpoint(e HTTPEndpoint, get func(store, name string) (map[string]string, error)) (HTTPEndpoint, Problems) {
	to := e.wants()
	var problems, more Problems
	e.Headers, problems = to.resolve(e.Headers, get)
	to.item = func(name string) string { return "clientTLS." + name }
	e.TLS, more = to.resolve(e.TLS, get)
	return e, append(problems, more...)
}

// wants is who takes secrets for the headers.
func (e HTTPEndpoint) wants() taker {
	return taker{
		who: "HTTPEndpoint " + e.Name, store: e.SecretStore, storePlace: e.StorePlace,
		item: func(name string) string { return fmt.Sprintf("header %q", name) },
	}
}

// HasSecrets tells whether a header or the TLS of the endpoint is in a secret store.
func (e HTTPEndpoint) HasSecrets() bool {
	return slices.ContainsFunc(slices.Concat(e.Headers, e.TLS), fromStore)
}

func fromStore(it Item) bool { return it.SecretRef != nil }

// CheckStore finds out whether the secret store that the endpoint needs is among
// the components.
func (e HTTPEndpoint) CheckStore(components []Component) Problems {
	to := e.wants()
	at := slices.IndexFunc(e.Headers, fromStore)
	items := e.Headers
	if at < 0 {
		to.item = func(name string) string { return "clientTLS." + name }
		at, items = slices.IndexFunc(e.TLS, fromStore), e.TLS
	}
	switch {
	case at < 0:
		return nil
	case e.SecretStore == "":
		return Problems{to.noStore(items[at])}
	case slices.ContainsFunc(components, func(c Component) bool { return c.Name == e.SecretStore && isStore(c) }):
		return nil
	}
	return Problems{to.unknownStore(components)}
}
