package runtime

import (
	"slices"
	"strings"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
)

// middlewareOf returns the middleware of that name as it is now, or nil.
func (ps *parts) middlewareOf(name string) *middleware.Handler {
	if p := ps.find(name); p != nil {
		return p.middleware
	}
	return nil
}

// setPipelines makes requests pass the middlewares that the configuration names.
func (r *Runtime) setPipelines(set *config.Set) {
	r.inbound.Set(handlersOf(set, set.Configuration.Inbound))
	r.toApp.Set(handlersOf(set, set.Configuration.ToApp))
}

// handlersOf names the handlers of a list. One whose component is for other
// apps is left out, as under Dapr: a Configuration may be that of several apps.
func handlersOf(set *config.Set, list []config.Handler) []string {
	var names []string
	for _, h := range list {
		if !foreign(set, h.Name) {
			names = append(names, h.Name)
		}
	}
	return names
}

// foreign tells whether a component is there for other apps only.
func foreign(set *config.Set, name string) bool {
	here := func(c config.Component) bool { return c.Name == name }
	return slices.Contains(set.Elsewhere, name) && !slices.ContainsFunc(set.Components, here)
}

// handler checks an entry of a list of middlewares. What Dapr would leave out
// unseen is an error: requests would pass without it.
func (c *checker) handler(h config.Handler) {
	if foreign(c.set, h.Name) {
		return
	}
	if _, ok := c.named("middleware", h.Name, h.NamePlace); !ok || h.Type == "" {
		return
	}
	i := slices.IndexFunc(c.set.Components, func(comp config.Component) bool { return comp.Name == h.Name })
	comp := c.set.Components[i]
	if h.Type != comp.Type {
		c.add(h.TypePlace, "write type: "+comp.Type, "middleware %q is a %s, not a %s", h.Name, comp.Type, h.Type)
		return
	}
	if version := orV1(comp.Version); !strings.EqualFold(orV1(h.Version), version) {
		c.add(h.Place, "write version: "+version, "middleware %q has version %s, not %s", h.Name, version, orV1(h.Version))
	}
}

func orV1(version string) string {
	if version == "" {
		return "v1"
	}
	return version
}
