package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// Resolve returns a copy of c in which every reference to a secret is replaced
// by its value; the reference stays, beside it. get reads the secret called name
// from a store; it is called once per name. A problem about a secret that cannot be read has the error of get as
// its Cause. No value ever reaches a problem's text.
func Resolve(c Component, get func(store, name string) (map[string]string, error)) (Component, Problems) {
	var problems Problems
	c.Metadata, problems = c.wants().resolve(c.Metadata, get)
	return c, problems
}

// taker is who takes secrets from a store.
type taker struct {
	who        string // "component c"
	store      string // may be empty
	storePlace Place
	item       func(name string) string // `option "x"`
}

func (c Component) wants() taker {
	return taker{
		who: "component " + c.Name, store: c.SecretStore, storePlace: c.StorePlace,
		item: func(name string) string { return fmt.Sprintf("option %q", name) },
	}
}

// resolve returns a copy of the items with their secrets.
func (t taker) resolve(items []Item, get func(store, name string) (map[string]string, error)) ([]Item, Problems) {
	var problems Problems
	type answer struct {
		pairs map[string]string
		err   error
	}
	answers := map[string]answer{}
	items = slices.Clone(items)
	for i := range items {
		it := &items[i]
		if it.SecretRef == nil {
			continue
		}
		if t.store == "" {
			problems = append(problems, t.noStore(*it))
			continue
		}
		a, asked := answers[it.SecretRef.Name]
		if !asked {
			a.pairs, a.err = get(t.store, it.SecretRef.Name)
			answers[it.SecretRef.Name] = a
		}
		value, ok := a.pairs[it.SecretRef.Key]
		if a.err != nil || !ok {
			problems = append(problems, t.unread(*it, a.pairs, a.err))
			continue
		}
		it.Value, it.Secret = value, true
	}
	return items, problems
}

func (t taker) noStore(it Item) Problem {
	noun, _, _ := strings.Cut(t.who, " ")
	return Problem{
		Place: it.Place,
		Text:  fmt.Sprintf("%s: %s is a secret, but the %s names no secret store", t.who, t.item(it.Name), noun),
		Hint:  "add auth: {secretStore: NAME}",
	}
}

// unread says why a secret has no value.
func (t taker) unread(it Item, pairs map[string]string, err error) Problem {
	p := Problem{Place: it.Place, Cause: err}
	if err != nil {
		p.Text = fmt.Sprintf("%s: %s: read secret %q of store %q: %v", t.who, t.item(it.Name), it.SecretRef.Name, t.store, err)
		return p
	}
	p.Text = fmt.Sprintf("%s: %s: secret %q of store %q has no key %q", t.who, t.item(it.Name), it.SecretRef.Name, t.store, it.SecretRef.Key)
	p.Cause = fault.New(fault.NotFound, "%s", p.Text)
	known := make([]string, 0, len(pairs))
	for k := range pairs {
		known = append(known, k)
	}
	p.Hint = DidYouMean(it.SecretRef.Key, sorted(known))
	return p
}

// unknownStore says that the store is not among the components.
func (t taker) unknownStore(all []Component) Problem {
	p := Problem{Place: t.storePlace, Text: fmt.Sprintf("%s: secret store %q is not configured", t.who, t.store)}
	var known []string
	for _, c := range all {
		if isStore(c) {
			known = append(known, c.Name)
		}
		if c.Name == t.store {
			p.Text = fmt.Sprintf("%s: %q is a %s, not a secret store", t.who, t.store, c.Type)
		}
	}
	p.Hint = DidYouMean(t.store, sorted(known))
	return p
}

// storeKind begins the types of secret stores.
const storeKind = "secretstores."

// OpenOrder returns the components in the order to open them: secret stores
// first, each after the store that it takes its own secrets from, the rest as
// they were. A reference to a store that is not there, or to something that is
// no store, is a problem, and so is a circle of stores that need each other.
func OpenOrder(components []Component) ([]Component, Problems) {
	o := ordering{all: components, byName: map[string]int{}, state: make([]visit, len(components))}
	for i, c := range components {
		if isStore(c) {
			o.byName[c.Name] = i
		}
	}
	for i, c := range components {
		if isStore(c) {
			o.visit(i, nil)
		}
	}
	for i, c := range components {
		if !isStore(c) {
			o.store(i)
			o.ordered = append(o.ordered, c)
		}
	}
	return o.ordered, o.problems
}

func isStore(c Component) bool { return strings.HasPrefix(strings.ToLower(c.Type), storeKind) }

type visit uint8

const (
	unseen visit = iota
	open
	done
)

type ordering struct {
	all      []Component
	byName   map[string]int // secret stores
	state    []visit
	ordered  []Component
	problems Problems
}

// store returns the index of the store that component i needs; ok is false when
// it needs none or a problem was reported.
func (o *ordering) store(i int) (need int, ok bool) {
	c := o.all[i]
	at := slices.IndexFunc(c.Metadata, fromStore)
	if at < 0 {
		return 0, false
	}
	it := c.Metadata[at]
	if c.SecretStore == "" {
		o.problems = append(o.problems, c.wants().noStore(it))
		return 0, false
	}
	if need, ok = o.byName[c.SecretStore]; ok {
		return need, true
	}
	o.problems = append(o.problems, c.wants().unknownStore(o.all))
	return 0, false
}

// visit opens what store i needs and then the store itself. The path holds the
// stores that led here.
func (o *ordering) visit(i int, path []string) {
	path = append(path, o.all[i].Name)
	switch o.state[i] {
	case done:
		return
	case open:
		o.circle(i, path)
		return
	}
	o.state[i] = open
	if need, ok := o.store(i); ok {
		o.visit(need, path)
	}
	o.state[i] = done
	o.ordered = append(o.ordered, o.all[i])
}

func (o *ordering) circle(i int, path []string) {
	path = path[slices.Index(path, o.all[i].Name):]
	text := fmt.Sprintf("secret stores need each other to open: %s", strings.Join(path, " -> "))
	if len(path) == 2 {
		text = fmt.Sprintf("secret store %s needs itself to open", path[0])
	}
	o.problems = append(o.problems, Problem{
		Place: o.all[i].Place, Text: text, Hint: "give one of them its secrets by value or envRef",
	})
}
