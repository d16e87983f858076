package config

import (
	"fmt"
	"strings"
)

// handlers reads the lists of middlewares and returns what merges them into a
// configuration: each list wins over earlier ones.
func (r *reader) handlers(spec *fields) (put func(into *Configuration)) {
	inbound, toApp := r.handlerList(spec, "httpPipeline"), r.handlerList(spec, "appHttpPipeline")
	return func(into *Configuration) {
		if spec.get("httpPipeline") != nil {
			into.Inbound = inbound
		}
		if spec.get("appHttpPipeline") != nil {
			into.ToApp = toApp
		}
	}
}

func (r *reader) handlerList(spec *fields, field string) []Handler {
	f := spec.table(field)
	f.vital = []string{"handlers"}
	var list []Handler
	for i, n := range f.items("handlers") {
		list = append(list, r.handler(n, fmt.Sprintf("spec.%s.handlers[%d]", field, i)))
	}
	f.done()
	return list
}

// handler reads one entry. One that says not enough would be left out by Dapr,
// unseen: requests would pass without it.
func (r *reader) handler(n *node, path string) Handler {
	f := r.table(n, path, n.at, false)
	h := Handler{Name: f.need("name"), Type: f.need("type"), Version: strings.ToLower(f.text("version")), Place: n.at}
	h.NamePlace, h.TypePlace = f.place("name"), f.place("type")
	f.skip("selector") // of an earlier version of Dapr, which never used it
	f.done()
	return h
}
